"""Decoding of a tiny model whose every sentence can be listed."""

import itertools

import pytest
import torch

from ditbook import generation as decoding

BOS, EOS, V = 0, 1, 4


def table_model(seed, batch=1):
    """The next token depends on the last one and on all before it, through a sum that the state carries."""
    tables = torch.randn(batch, 8, V, V, generator=torch.Generator().manual_seed(seed)) * 2
    tables[:, :, :, BOS] = -30  # never written

    def step(token, state):
        history = (3 * state["history"] + token) % 8
        return state["table"][torch.arange(len(token)), history, token], {**state, "history": history}

    return step, {"table": tables, "history": torch.zeros(batch, dtype=torch.long)}


def log_probability(step, state, sentence):
    total, token = 0.0, torch.tensor([BOS])
    for word in sentence:
        logits, state = step(token, state)
        total += logits[0].log_softmax(-1)[word].item()
        token = torch.tensor([word])
    return total


def sentences(longest):
    """Every sentence of at most `longest` tokens that ends, and those of full length that do not."""
    for length in range(1, longest + 1):
        for words in itertools.product([2, 3], repeat=length - 1):
            yield (*words, EOS)
    yield from itertools.product([2, 3], repeat=longest)


def trimmed(tokens):
    row = tokens.tolist()
    return tuple(row[: row.index(EOS) + 1]) if EOS in row else tuple(row)


@pytest.mark.equation("2.8", of="ditbook.generation.beam", against="all sentences of a small language, listed")
@pytest.mark.parametrize("seed", range(12))
def test_a_beam_as_wide_as_the_tree_finds_the_best_sentence(seed):
    step, state = table_model(seed)
    best = max(sentences(5), key=lambda words: log_probability(step, state, words))
    tokens, score = decoding.beam(step, state, bos=BOS, eos=EOS, max_length=5, width=40)
    assert trimmed(tokens[0]) == best
    assert score.item() == pytest.approx(log_probability(step, state, best), abs=1e-4)


@pytest.mark.parametrize("seed", range(12))
def test_a_length_penalty_compares_by_the_mean(seed):
    step, state = table_model(seed)
    ended = [words for words in sentences(5) if words[-1] == EOS]
    best = max(ended, key=lambda words: log_probability(step, state, words) / len(words))
    tokens, _ = decoding.beam(step, state, bos=BOS, eos=EOS, max_length=12, width=200, length_penalty=1.0)
    found = trimmed(tokens[0])
    mean = log_probability(step, state, found) / len(found)
    assert mean >= log_probability(step, state, best) / len(best) - 1e-5


def plain_beam(step, state, longest, width, penalty):
    """Beam search with lists of words, each sentence worked out anew from its beginning."""
    beams = [((), 0.0)]
    for _ in range(longest):
        grown = []
        for words, total in beams:
            if words and words[-1] == EOS:
                grown.append((words, total))
            else:
                grown += [((*words, word), log_probability(step, state, (*words, word))) for word in range(V)]
        grown.sort(key=lambda beam: -beam[1] / len(beam[0]) ** penalty)
        beams = grown[:width]
    return beams[0]


@pytest.mark.parametrize("penalty", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("width", [2, 3])
def test_a_narrow_beam_is_the_plain_one(width, penalty):
    for seed in range(24):
        step, state = table_model(seed)
        words, total = plain_beam(step, state, 5, width, penalty)
        tokens, score = decoding.beam(step, state, bos=BOS, eos=EOS, max_length=5, width=width, length_penalty=penalty)
        if words[-1] == EOS:
            assert trimmed(tokens[0]) == words
            assert score.item() == pytest.approx(total, abs=1e-4)


def test_greedy_takes_the_best_token_and_a_beam_of_one_is_greedy():
    different = 0
    for seed in range(30):
        step, state = table_model(seed)
        tokens = decoding.greedy(step, state, bos=BOS, eos=EOS, max_length=5)
        token, now = torch.tensor([BOS]), state
        for word in trimmed(tokens[0]):
            logits, now = step(token, now)
            assert logits.argmax().item() == word
            token = torch.tensor([word])
        one, _ = decoding.beam(step, state, bos=BOS, eos=EOS, max_length=5, width=1)
        assert trimmed(one[0]) == trimmed(tokens[0])
        wide, score = decoding.beam(step, state, bos=BOS, eos=EOS, max_length=5, width=4)
        assert score.item() >= log_probability(step, state, trimmed(tokens[0])) - 1e-4
        different += trimmed(wide[0]) != trimmed(tokens[0])
    assert different > 0  # there are sentences that greed does not find


def test_sentences_of_a_batch_do_not_disturb_each_other():
    step, state = table_model(3, batch=5)
    greedy = decoding.greedy(step, state, bos=BOS, eos=EOS, max_length=5)
    beams, scores = decoding.beam(step, state, bos=BOS, eos=EOS, max_length=5, width=3)
    for row in range(5):
        alone = {name: value[row : row + 1] for name, value in state.items()}
        assert trimmed(decoding.greedy(step, alone, bos=BOS, eos=EOS, max_length=5)[0]) == trimmed(greedy[row])
        tokens, score = decoding.beam(step, alone, bos=BOS, eos=EOS, max_length=5, width=3)
        assert trimmed(tokens[0]) == trimmed(beams[row])
        assert score.item() == pytest.approx(scores[row].item(), abs=1e-5)
        after_end = greedy[row].tolist()
        if EOS in after_end:
            assert set(after_end[after_end.index(EOS) :]) == {EOS}


def test_a_sentence_without_end_stops_at_the_longest():
    def step(token, state):
        return torch.tensor([[0.0, -50.0, 1.0, 0.0]]).repeat(len(token), 1), state

    state = {"nothing": torch.zeros(2, 1)}
    assert decoding.greedy(step, state, bos=BOS, eos=EOS, max_length=7).tolist() == [[2] * 7] * 2
    assert decoding.beam(step, state, bos=BOS, eos=EOS, max_length=7, width=2)[0].tolist() == [[2] * 7] * 2


def test_no_beam_is_refused():
    step, state = table_model(0)
    with pytest.raises(ValueError, match="at least 1 wide, not 0"):
        decoding.beam(step, state, bos=BOS, eos=EOS, max_length=5, width=0)
