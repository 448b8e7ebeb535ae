"""The manual as rows of tokens, and the task that a BERT is trained on."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from ditbook.data.tokenizer import PAD
from ditbook.models.bert import BERT, BERTConfig
from ditbook.objectives.masking import IGNORED, mask_words
from ditbook.training.loop import Context
from ditbook.training.tasks import manual
from ditbook.training.tasks.manual import CLS, MASK, SEP
from ditbook.training.tasks.masked_words import MaskedWords, accuracy, chosen, fill

SMALL = {"vocabulary": 1000, "positions": 64, "width": 12, "depth": 1, "heads": 2}


def make(**changes):
    torch.manual_seed(0)
    return BERT(BERTConfig(**{**SMALL, **changes}))


def context(seed=0):
    return Context(0, torch.Generator().manual_seed(seed))


def test_a_paragraph_stands_once_and_in_one_split():
    lines = [line for _, line in manual.paragraphs()]
    assert len(lines) == len(set(lines)) == 1712
    kept, seen = ([line for part in manual.documents(split) for line in part] for split in ("validation", "train"))
    assert len(kept) + len(seen) == len(lines)
    assert set(kept) == {line for line in lines if manual.held_out(line)}
    assert set(kept).isdisjoint(seen)
    assert 0.09 < len(kept) / len(lines) < 0.16
    assert all(len(line) >= 20 and "\n" not in line and "****" not in line for line in lines)
    with pytest.raises(ValueError, match="unknown split 'test'"):
        manual.documents("test")


def test_documents_hold_paragraphs_that_follow_one_another():
    order = {line: number for number, (_, line) in enumerate(manual.paragraphs())}
    topics = {line: topic for topic, line in manual.paragraphs()}
    for part in manual.documents("train"):
        numbers = [order[line] for line in part]
        assert numbers == list(range(numbers[0], numbers[0] + len(part)))
        assert len({topics[line] for line in part}) == 1


def test_running_text_is_the_text():
    rows = manual.running_text("validation", step=30)
    assert rows.shape[1] == 32
    assert (rows[:, 0] == CLS).all()
    assert (rows[:, -1] == SEP).all()
    texts = ["\n".join(part) for part in manual.documents("validation")]
    for row in rows[::40].tolist():
        piece = manual.words().decode(row[1:-1]).strip("\ufffd")
        assert any(piece in text for text in texts)


def test_sentences_are_the_text_cut():
    rows, numbers = manual.sentences("validation")
    assert max(map(len, rows)) <= 30
    documents = manual.documents("validation")
    for number in (0, 5, 100):
        mine = [row for row, n in zip(rows, numbers.tolist(), strict=True) if n == number]
        assert manual.words().decode([i for row in mine for i in row]) == "".join(documents[number])


def test_pairs_are_marked_by_segments():
    batch = manual.join([[5, 6], [7]], [[8], [9, 10, 11]])
    assert batch["tokens"].tolist() == [[CLS, 5, 6, SEP, 8, SEP, PAD], [CLS, 7, SEP, 9, 10, 11, SEP]]
    assert batch["segments"].tolist() == [[0, 0, 0, 0, 1, 1, 0], [0, 0, 0, 1, 1, 1, 1]]
    found = manual.pairs("validation", 300, seed=0)
    rows, _ = manual.sentences("validation")
    neighbours = {(tuple(a), tuple(b)) for a, b in itertools.pairwise(rows)}
    for tokens, random in zip(found["tokens"].tolist(), found["random"].tolist(), strict=True):
        first_end = tokens.index(SEP)
        second = tokens[first_end + 1 : tokens.index(SEP, first_end + 1)]
        assert random or (tuple(tokens[1:first_end]), tuple(second)) in neighbours


def test_gaps_are_whole_words_with_text_on_both_sides():
    rows, places = manual.gaps(500, seed=1)
    names = manual.words().tokens
    assert places.min() >= 8
    assert places.max() < 24
    for row, place in zip(rows.tolist(), places.tolist(), strict=True):
        assert names[row[place]].startswith(" ")
        assert names[row[place]][1:].isalpha()
        assert not names[row[place + 1]][:1].isalnum()


def test_the_loss_is_that_of_the_chosen_words():
    """Taking logits at a quarter of the places alone changes nothing."""
    tokens = manual.running_text("validation", step=30)[:16]
    model, task = make(), MaskedWords(next_sentence=False, parts=(0.5, 0.25, 0.25))
    loss = task.loss(model, {"tokens": tokens}, context(3))
    options = {"vocabulary": 1000, "mask": MASK, "special": range(4), "parts": (0.5, 0.25, 0.25)}
    hidden, labels = mask_words(tokens, context(3).generator, **options)
    wanted = F.cross_entropy(model(hidden)[0].flatten(0, 1), labels.flatten(), ignore_index=IGNORED)
    torch.testing.assert_close(loss, wanted)
    mine, theirs = (torch.autograd.grad(x, model.words.weight)[0] for x in (loss, wanted))
    torch.testing.assert_close(mine, theirs)


def test_the_loss_of_pairs_is_the_sum():
    batch = manual.pairs("validation", 16, seed=0)
    model, task = make(), MaskedWords(next_sentence=True)
    hidden, labels = mask_words(batch["tokens"], context(3).generator, vocabulary=1000, mask=MASK, special=range(4))
    words, sentences = model(hidden, segments=batch["segments"])
    wanted = F.cross_entropy(words.flatten(0, 1), labels.flatten()) + F.cross_entropy(sentences, batch["random"])
    torch.testing.assert_close(task.loss(model, batch, context(3)), wanted)
    data = task.data()
    assert data["tokens"].shape == (20_000, 63)
    assert abs(data["random"].double().mean() - 0.5) < 0.02


def test_the_rival_predicts_the_next_token_of_the_same_rows():
    tokens = manual.running_text("validation", step=30)[:8]
    model, task = make(causal=True), MaskedWords(next_sentence=False)
    logits = model(tokens)[0]
    wanted = F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
    torch.testing.assert_close(task.loss(model, {"tokens": tokens}, context()), wanted)


def test_chosen_places_are_all_there():
    model, x = make(), torch.randn(4, 8, 12)
    labels = torch.full((4, 8), IGNORED)
    labels[0, 3], labels[2, 1], labels[3, 7] = 5, 6, 7
    logits, kept = chosen(model, x, labels)
    assert logits.shape == (1, 8, 1000)
    assert sorted(kept[kept != IGNORED].tolist()) == [5, 6, 7]
    at = (kept[0] == 6).nonzero().item()
    torch.testing.assert_close(logits[0, at], model.word_logits(x[2, 1]))


def test_a_gap_is_filled_without_seeing_the_word():
    tokens, places = manual.gaps(20, seed=1)
    n, other = torch.arange(20), tokens.clone()
    other[n, places] = 500
    both, left = make(), make(causal=True)
    for model in (both, left):
        torch.testing.assert_close(fill(model, tokens, places), fill(model, other, places))
    behind = tokens.clone()
    behind[n, places + 1] = 501
    assert not torch.allclose(fill(both, tokens, places), fill(both, behind, places))
    torch.testing.assert_close(fill(left, tokens, places), fill(left, behind, places))
    torch.testing.assert_close(*(fill(both, rows, places, right=False) for rows in (tokens, behind)))
    hidden = tokens.clone()
    hidden[n, places] = MASK
    torch.testing.assert_close(fill(both, tokens, places), both(hidden)[0][n, places])
    torch.testing.assert_close(fill(left, tokens, places), left(tokens)[0][n, places - 1])


def test_the_task_is_measured_on_held_out_text():
    model = make()
    tokens, places = manual.gaps(2000, seed=1)
    metric = MaskedWords(next_sentence=True).evaluate(model)
    truth = tokens[torch.arange(2000), places]
    assert metric["right words in 2,000 held-out gaps"] == round(accuracy(fill(model, tokens, places), truth), 4)
    assert 0.3 < metric["right of 2,000 held-out pairs"] < 0.7
    assert len(MaskedWords(next_sentence=False).evaluate(model)) == 1
