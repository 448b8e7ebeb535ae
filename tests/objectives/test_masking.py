import math

import pytest
import torch
import torch.nn.functional as F

from ditbook.objectives.masking import IGNORED, mask_words, next_sentence_pairs, pretraining_loss

MASK, VOCABULARY, SPECIAL = 3, 1000, (0, 1, 2)


def rows(count=400, length=50):
    tokens = torch.randint(4, VOCABULARY, (count, length), generator=torch.Generator().manual_seed(7))
    tokens[:, 0], tokens[:, -1], tokens[: count // 2, -9:] = 1, 2, 0
    return tokens


def hide(tokens, seed=0, **options):
    generator = torch.Generator().manual_seed(seed)
    return mask_words(tokens, generator, vocabulary=VOCABULARY, mask=MASK, special=SPECIAL, **options)


@pytest.mark.equation("4.2", of="ditbook.objectives.masking.mask_words", against="frequencies within four deviations")
@pytest.mark.parametrize("parts", [(0.8, 0.1, 0.1), (1.0, 0.0, 0.0), (0.0, 0.2, 0.8), (0.0, 1.0, 0.0)])
def test_the_frequencies_are_those_of_the_rule(parts):
    tokens = rows()
    hidden, labels = hide(tokens, parts=parts)
    chosen, possible = labels != IGNORED, ~torch.isin(tokens, torch.tensor(SPECIAL))
    assert torch.equal(labels[chosen], tokens[chosen])
    assert torch.equal(hidden[~chosen], tokens[~chosen])
    assert not (chosen & ~possible).any()
    n = int(possible.sum())
    assert abs(int(chosen.sum()) - 0.15 * n) < 4 * math.sqrt(n * 0.15 * 0.85)
    masked = chosen & (hidden == MASK)
    same = chosen & (hidden == tokens)
    other = chosen & ~masked & ~same
    for found, p in zip((masked, other, same), parts, strict=True):
        m = int(chosen.sum())  # a random token is the old one, or the mask, once in a thousand times each
        assert abs(int(found.sum()) - p * m) <= 4 * math.sqrt(m * p * (1 - p)) + 0.004 * m
    if parts[1]:
        assert len(hidden[other].unique()) > 150  # from the whole vocabulary


def test_the_fraction_and_the_seed():
    tokens = rows()
    assert all(torch.equal(a, b) for a, b in zip(hide(tokens), hide(tokens), strict=True))
    assert not torch.equal(hide(tokens)[0], hide(tokens, seed=1)[0])
    hidden, labels = hide(tokens, fraction=1.0, parts=(1.0, 0.0, 0.0))
    special = torch.isin(tokens, torch.tensor(SPECIAL))
    assert (hidden[~special] == MASK).all()
    assert torch.equal(labels == IGNORED, special)


def test_bad_numbers_are_refused():
    for fraction in (0.0, 1.5):
        with pytest.raises(ValueError, match=r"fraction must be in \(0, 1\]"):
            hide(rows(), fraction=fraction)
    for parts in ((0.8, 0.1, 0.2), (1.2, -0.2, 0.0)):
        with pytest.raises(ValueError, match="must not be negative and must sum to one"):
            hide(rows(), parts=parts)


@pytest.mark.parametrize("topics", [[0] * 6, [0, 0, 1, 1, 1, 2]])
def test_a_random_sentence_is_never_the_true_one(topics):
    document = torch.tensor(topics)
    first, second, label = next_sentence_pairs(document, 20_000, torch.Generator().manual_seed(0))
    true = label == 0
    assert torch.equal(second[true], first[true] + 1)
    assert torch.equal(document[second[true]], document[first[true]])
    assert (second[~true] != first[~true] + 1).all()
    assert (second[~true] != first[~true]).all()
    assert abs(int(label.sum()) - 10_000) < 4 * math.sqrt(5000)
    starts = [i for i in range(5) if topics[i] == topics[i + 1]]
    assert sorted(first.unique().tolist()) == starts
    for i in starts:  # all other sentences are drawn equally often
        drawn = second[~true & (first == i)]
        counts = drawn.bincount(minlength=6)
        others = [j for j in range(6) if j not in (i, i + 1)]
        assert counts[others].sum() == len(drawn)
        expected = len(drawn) / 4
        assert all(abs(counts[j] - expected) < 4 * math.sqrt(expected) for j in others)


def test_texts_without_neighbours_are_refused():
    for document in ([0, 1, 2], [0, 0]):
        with pytest.raises(ValueError, match="neighbours; three and one are needed at least"):
            next_sentence_pairs(torch.tensor(document), 5, torch.Generator())


@pytest.mark.equation("4.4", of="ditbook.objectives.masking.pretraining_loss", against="a loop over the chosen places")
def test_the_loss_is_the_sum_of_two_means():
    torch.manual_seed(0)
    words, sentences = torch.randn(2, 4, 6), torch.randn(2, 2)
    labels = torch.tensor([[IGNORED, 5, IGNORED, 0], [2, IGNORED, IGNORED, IGNORED]])
    places = [(0, 1, 5), (0, 3, 0), (1, 0, 2)]
    masked = -sum(math.log(words[b, t].softmax(0)[v]) for b, t, v in places) / 3
    pairs = -(math.log(sentences[0].softmax(0)[1]) + math.log(sentences[1].softmax(0)[0])) / 2
    loss = pretraining_loss(words, sentences, labels, torch.tensor([1, 0]))
    assert loss.item() == pytest.approx(masked + pairs, rel=1e-5)
    wanted = F.cross_entropy(words.flatten(0, 1), labels.flatten()) + F.cross_entropy(sentences, torch.tensor([1, 0]))
    torch.testing.assert_close(loss, wanted)


def test_everything_runs_on_the_meta_device():
    tokens = torch.zeros(2, 5, dtype=torch.long, device="meta")
    hidden, labels = hide(tokens)
    assert hidden.device.type == labels.device.type == "meta"
    loss = pretraining_loss(torch.zeros(2, 5, 9, device="meta"), torch.zeros(2, 2, device="meta"), labels, tokens[:, 0])
    assert loss.shape == ()
