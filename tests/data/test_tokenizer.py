import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from ditbook.data import python_docs
from ditbook.data.tokenizer import (
    BOS,
    EOS,
    PAD,
    SPECIAL,
    UNK,
    BPETokenizer,
    CharTokenizer,
    WordTokenizer,
    batch,
    pieces,
)

TEXTS = [
    "a small red star",
    "a star, a star\n\tand d'un – naïve 東京 🎈👩‍🚀 x_1 left-hand  two  spaces ",
    "",
    " ",
    "don't",
]
CORPUS = ["low low low low low", "lower lower", "newest newest newest newest newest newest", "widest widest widest"]


@pytest.fixture(scope="module")
def english():
    return python_docs.load("train")["text"][:12]


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_lose_nothing(text):
    assert "".join(pieces(text)) == text


def test_words_keep_the_space_before_them_and_the_apostrophe_after():
    assert pieces("gauche d'un au-dessus, non.") == ["gauche", " d'", "un", " au-dessus", ",", " non", "."]


@pytest.mark.parametrize(
    "make", [CharTokenizer.train, WordTokenizer.train, lambda texts: BPETokenizer.train(texts, 300)]
)
def test_what_is_encoded_is_decoded(make):
    tokenizer = make(TEXTS)
    for text in TEXTS:
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert tokenizer.decode([BOS, *ids, EOS, PAD]) == text
        assert all(len(SPECIAL) <= index < len(tokenizer) for index in ids)
    assert tokenizer.tokens[:4] == list(SPECIAL)
    assert len(tokenizer.tokens) == len(tokenizer)


def test_bytes_know_texts_that_training_never_saw():
    tokenizer = BPETokenizer.train(CORPUS, 280)
    for text in TEXTS:
        assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize(
    ("kind", "text", "piece"), [(CharTokenizer, "a redz", "z"), (WordTokenizer, "a red zebra", " zebra")]
)
def test_an_unknown_piece_is_an_error_or_a_token(kind, text, piece):
    tokenizer = kind.train(["a red star"])
    with pytest.raises(ValueError, match=rf"'{piece}' at character 5 is not in the vocabulary"):
        tokenizer.encode(text)
    ids = tokenizer.encode(text, unknown="unk")
    assert ids[:-1] == tokenizer.encode("a red")
    assert ids[-1] == UNK
    assert tokenizer.decode(ids) == "a red<unk>"
    with pytest.raises(ValueError, match="must be 'error' or 'unk', not 'skip'"):
        tokenizer.encode(text, unknown="skip")


def test_frequent_words_come_first_and_ties_in_order():
    assert WordTokenizer.train(["b a b c c", "b"]).tokens[4:] == [" c", "b", " a", " b"]


def test_rows_are_padded_on_the_right():
    rows = batch([[7], [8, 9]], bos=True, eos=True)
    assert rows.tolist() == [[BOS, 7, EOS, PAD], [BOS, 8, 9, EOS]]
    assert rows.dtype == torch.int64
    assert batch([[7], [8, 9]]).tolist() == [[7, PAD], [8, 9]]
    with pytest.raises(ValueError, match="no row"):
        batch([])


def reference(texts, vocabulary):
    """The merges of the library `tokenizers` on the same pieces, their bytes written as characters 0 to 255."""
    cut = "\u0400"
    library = Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.Split(cut, "removed")
    bytewise = (cut.join(piece.encode().decode("latin-1") for piece in pieces(text)) for text in texts)
    alphabet = [chr(byte) for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False
    )
    library.train_from_iterator(bytewise, trainer)
    return library


def test_merges_are_those_of_the_tokenizers_library(english):
    library = reference(english, 700)
    mine = BPETokenizer.train(english, 700)
    vocabulary = library.get_vocab()
    theirs = [token for token, index in sorted(vocabulary.items(), key=lambda item: item[1]) if index >= 260]
    assert [mine._bytes[260 + rank].decode("latin-1") for rank in range(len(mine.merges))] == theirs
    assert len(theirs) == 440
    for text in [*english[:3], *TEXTS]:
        bytewise = "\u0400".join(piece.encode().decode("latin-1") for piece in pieces(text))
        assert mine.encode(text) == library.encode(bytewise).ids


def test_merges_by_hand():
    """es occurs 9 times, as often as st; then est 9 times; then lo 7 times, as often as ow; then low."""
    assert BPETokenizer.train(CORPUS, 264).tokens[260:] == ["es", "est", "lo", "low"]


def test_a_corpus_can_be_used_up():
    assert len(BPETokenizer.train(["aaaa"], 1000)) == 262
    with pytest.raises(ValueError, match="a vocabulary of 100 is too small: 260 tokens"):
        BPETokenizer.train(["a"], 100)
