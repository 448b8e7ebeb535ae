"""Writing with a tiny model whose every text can be listed."""

import itertools
import math

import pytest
import torch

from ditbook import generation, rng

BOS, EOS, V = 0, 1, 4


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
def test_a_beam_as_wide_as_the_tree_finds_the_best_sentence(table_model, seed):
    step, state = table_model(seed)
    best = max(sentences(5), key=lambda words: log_probability(step, state, words))
    tokens, score = generation.beam(step, state, first=BOS, eos=EOS, max_length=5, width=40)
    assert trimmed(tokens[0]) == best
    assert score.item() == pytest.approx(log_probability(step, state, best), abs=1e-4)


@pytest.mark.parametrize("seed", range(12))
def test_a_length_penalty_compares_by_the_mean(table_model, seed):
    step, state = table_model(seed)
    ended = [words for words in sentences(5) if words[-1] == EOS]
    best = max(ended, key=lambda words: log_probability(step, state, words) / len(words))
    tokens, _ = generation.beam(step, state, first=BOS, eos=EOS, max_length=12, width=200, length_penalty=1.0)
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
def test_a_narrow_beam_is_the_plain_one(table_model, width, penalty):
    for seed in range(24):
        step, state = table_model(seed)
        words, total = plain_beam(step, state, 5, width, penalty)
        tokens, score = generation.beam(
            step, state, first=BOS, eos=EOS, max_length=5, width=width, length_penalty=penalty
        )
        if words[-1] == EOS:
            assert trimmed(tokens[0]) == words
            assert score.item() == pytest.approx(total, abs=1e-4)


def test_greedy_takes_the_best_token_and_a_beam_of_one_is_greedy(table_model):
    different = 0
    for seed in range(30):
        step, state = table_model(seed)
        tokens = generation.greedy(step, state, first=BOS, eos=EOS, max_length=5)
        token, now = torch.tensor([BOS]), state
        for word in trimmed(tokens[0]):
            logits, now = step(token, now)
            assert logits.argmax().item() == word
            token = torch.tensor([word])
        one, _ = generation.beam(step, state, first=BOS, eos=EOS, max_length=5, width=1)
        assert trimmed(one[0]) == trimmed(tokens[0])
        wide, score = generation.beam(step, state, first=BOS, eos=EOS, max_length=5, width=4)
        assert score.item() >= log_probability(step, state, trimmed(tokens[0])) - 1e-4
        different += trimmed(wide[0]) != trimmed(tokens[0])
    assert different > 0  # there are sentences that greed does not find


def test_sentences_of_a_batch_do_not_disturb_each_other(table_model):
    step, state = table_model(3, batch=5)
    greedy = generation.greedy(step, state, first=BOS, eos=EOS, max_length=5)
    beams, scores = generation.beam(step, state, first=BOS, eos=EOS, max_length=5, width=3)
    for row in range(5):
        alone = {name: value[row : row + 1] for name, value in state.items()}
        assert trimmed(generation.greedy(step, alone, first=BOS, eos=EOS, max_length=5)[0]) == trimmed(greedy[row])
        tokens, score = generation.beam(step, alone, first=BOS, eos=EOS, max_length=5, width=3)
        assert trimmed(tokens[0]) == trimmed(beams[row])
        assert score.item() == pytest.approx(scores[row].item(), abs=1e-5)
        after_end = greedy[row].tolist()
        if EOS in after_end:
            assert set(after_end[after_end.index(EOS) :]) == {EOS}


def test_a_text_without_end_stops_at_the_longest():
    def step(token, state):
        return torch.tensor([[0.0, -50.0, 1.0, 0.0]]).repeat(len(token), 1), state

    options = {"first": BOS, "eos": EOS, "max_length": 7}
    state = {"nothing": torch.zeros(2, 1)}
    assert generation.greedy(step, state, **options).tolist() == [[2] * 7] * 2
    assert generation.beam(step, state, width=2, **options)[0].tolist() == [[2] * 7] * 2
    assert generation.greedy(step, state, first=BOS, max_length=3).tolist() == [[2] * 3] * 2


def allowed(p, top_k, top_p):
    """The tokens that the two cuts leave of probabilities `p`, by trying all sets."""
    kept = range(len(p))
    if top_k is not None:  # the k tokens of the largest sum
        kept = max(itertools.combinations(kept, min(top_k, len(p))), key=lambda s: sum(p[v] for v in s))
    total = sum(p[v] for v in kept)
    if top_p is not None:  # the smallest set whose sum reaches top_p; of those the one with the largest sum
        sets = [s for n in range(len(kept) + 1) for s in itertools.combinations(kept, n)]
        enough = [s for s in sets if sum(p[v] for v in s) >= top_p * total]
        kept = min(enough, key=lambda s: (len(s), -sum(p[v] for v in s)))
    return kept


def brute_probabilities(logits, temperature=1.0, top_k=None, top_p=None):
    p = [math.exp(value / temperature) for value in logits]
    kept = allowed(p, top_k, top_p and top_p - 1e-9)
    return [p[v] / sum(p[w] for w in kept) if v in kept else 0.0 for v in range(len(p))]


CUTS = [
    {},
    {"temperature": 0.5},
    {"top_k": 2},
    {"top_k": 99},
    {"top_p": 0.6},
    {"top_p": 0.97},
    {"top_p": 1.0},
    {"temperature": 1.7, "top_k": 3, "top_p": 0.7},
    {"temperature": 0.3, "top_k": 1},
]


@pytest.mark.equation("5.8", of="ditbook.generation.probabilities", against="all sets of tokens, tried")
@pytest.mark.parametrize("cut", CUTS)
def test_cuts_are_those_of_all_sets_tried(cut):
    logits = torch.randn(20, 6, generator=torch.Generator().manual_seed(0)) * 2
    wanted = torch.tensor([brute_probabilities(row, **cut) for row in logits.tolist()])
    torch.testing.assert_close(generation.probabilities(logits, **cut), wanted)


def test_the_nucleus_ends_with_the_token_that_reaches_top_p():
    logits = torch.tensor([0.125, 0.5, 0.125, 0.25]).log()
    for top_p, kept in (
        (0.01, [1]),
        (0.5, [1]),
        (0.51, [1, 3]),
        (0.75, [1, 3]),
        (0.76, [0, 1, 3]),
        (1.0, [0, 1, 2, 3]),
    ):
        assert generation.probabilities(logits, top_p=top_p).nonzero().flatten().tolist() == kept
    # (1/2, 1/4) of 3/4 are (2/3, 1/3): the nucleus is that of what the first cut left
    assert generation.probabilities(logits, top_k=2, top_p=0.6).tolist() == [0, 1, 0, 0]


def test_of_equal_tokens_the_first_are_kept():
    p = generation.probabilities(torch.zeros(3, 5), top_k=2)
    assert p.tolist() == [[0.5, 0.5, 0, 0, 0]] * 3
    assert generation.probabilities(torch.zeros(4), top_p=0.75).nonzero().flatten().tolist() == [0, 1, 2]


def test_the_whole_nucleus_keeps_even_what_rounding_hides():
    logits = torch.cat([torch.tensor([25.0]), torch.zeros(1000)])  # the first has all but 1.4e-8
    assert torch.equal(generation.probabilities(logits, top_p=1.0), generation.probabilities(logits))


def test_extreme_logits_and_temperatures():
    logits = torch.tensor([1.0, -math.inf, 3.0, 2.9], dtype=torch.float64)
    for temperature in (1e-30, 1e-4):
        assert generation.probabilities(logits, temperature=temperature).tolist() == [0, 0, 1, 0]
    assert generation.probabilities(1000 * logits, temperature=1e-37).tolist() == [0, 0, 1, 0]
    flat = generation.probabilities(logits, temperature=1e30)
    torch.testing.assert_close(flat, torch.tensor([1 / 3, 0, 1 / 3, 1 / 3]))
    assert generation.probabilities(1e30 * logits, top_p=0.9).tolist() == [0, 0, 1, 0]
    assert generation.probabilities(logits.half()).sum().item() == pytest.approx(1)


@pytest.mark.parametrize("cut", CUTS)
def test_samples_have_the_probabilities_of_all_texts(table_model, cut):
    step, state = table_model(1)
    n, longest = 20_000, 3
    wanted, going = {}, {(): (1.0, state, torch.tensor([BOS]))}
    for _ in range(longest):
        grown = {}
        for words, (p, before, token) in going.items():
            logits, after = step(token, before)
            for word, q in enumerate(brute_probabilities(logits[0].tolist(), **cut)):
                if word == EOS or len(words) + 1 == longest:
                    wanted[(*words, word)] = p * q
                else:
                    grown[*words, word] = p * q, after, torch.tensor([word])
        going = grown
    assert sum(wanted.values()) == pytest.approx(1)
    many = generation.select(state, torch.zeros(n, dtype=torch.long))
    generator = torch.Generator().manual_seed(0)
    texts = generation.sample(step, many, first=BOS, eos=EOS, max_length=longest, generator=generator, **cut)
    found = dict.fromkeys(wanted, 0)
    for row in texts:
        found[trimmed(row)] += 1  # a text that cannot be raises KeyError
    for words, p in wanted.items():
        assert abs(found[words] / n - p) <= 4.5 * math.sqrt(p * (1 - p) / n), words
        assert p > 1e-12 or found[words] == 0


def test_uniform_numbers_are_mapped_to_tokens_by_the_cumulative_distribution():
    p = torch.tensor([0.0, 0.25, 0.0, 0.5, 0.25, 0.0])
    below, above = 1 - 2**-24, 2**-24
    uniform = torch.tensor([0.0, 0.25 - above, 0.25, 0.5, 0.75 - 2 * above, 0.75, below])
    # 1 − u is compared, so that what has no probability is never reached: 0 is the end of the distribution
    assert generation._invert(p.repeat(7, 1), uniform).tolist() == [4, 4, 3, 3, 3, 1, 1]
    grid = (torch.arange(100_000) + 0.5) / 100_000
    counts = generation._invert(p.repeat(100_000, 1), grid).bincount(minlength=6)
    assert counts.tolist() == [0, 25_000, 0, 50_000, 25_000, 0]


def test_temperature_towards_zero_and_one_token_are_greedy(table_model):
    for seed in range(10):
        step, state = table_model(seed, batch=3)
        options = {"first": BOS, "eos": EOS, "max_length": 5}
        greedy = generation.greedy(step, state, **options)
        for cut in ({"temperature": 1e-6}, {"top_k": 1}, {"top_p": 1e-6}):
            generator = torch.Generator().manual_seed(seed)
            assert torch.equal(generation.sample(step, state, generator=generator, **cut, **options), greedy)


def test_a_seed_is_a_text_and_the_generator_does_not_see_where_texts_end(table_model):
    step, state = table_model(2, batch=4)
    options = {"first": BOS, "eos": EOS}
    one, other = (torch.Generator().manual_seed(5) for _ in range(2))
    short = generation.sample(step, state, max_length=30, generator=one, **options)
    assert short.shape[1] < 30
    assert torch.equal(generation.sample(step, state, max_length=30, generator=other, **options), short)
    rng.rand((30, 4), third := torch.Generator().manual_seed(5), torch.device("cpu"))
    assert torch.equal(one.get_state(), third.get_state())


def test_checking_now_and_then_for_the_end_changes_nothing(table_model, monkeypatch):
    """As on an accelerator, which each check would stall."""
    step, state = table_model(2, batch=4)
    options = {"first": BOS, "eos": EOS, "max_length": 40}
    draw = lambda: torch.Generator().manual_seed(0)  # noqa: E731
    run = lambda: (  # noqa: E731
        generation.greedy(step, state, **options),
        generation.sample(step, state, generator=draw(), **options),
        *generation.beam(step, state, width=3, **options),
    )
    always = run()
    monkeypatch.setattr(generation, "_all_ended", lambda ended, place: place % 16 == 15 and bool(ended.all()))
    for one, other in zip(run(), always, strict=True):
        assert torch.equal(one, other)
