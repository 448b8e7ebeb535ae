"""States: nested, copied, cached, and on other devices; and what is refused."""

import math

import pytest
import torch

from ditbook import generation

BOS, EOS, V = 0, 1, 4


class Cache:
    """Grows in place, as a cache of keys and values does."""

    def __init__(self, tokens):
        self.tokens = tokens  # (B, T)

    def extend(self, token):
        self.tokens = torch.cat([self.tokens, token[:, None]], dim=1)
        return self.tokens

    def select(self, rows):
        return Cache(self.tokens[rows])


def cached(table):
    """The model of `table_model`, its history in a cache and its table in a tuple of two parts."""

    def step(token, state):
        cache, table = state["layers"]
        history = 0
        for past in cache.extend(token).unbind(1):
            history = (3 * history + past) % 8
        return torch.cat(table, dim=1)[torch.arange(len(token)), history, token], state

    empty = torch.zeros(len(table), 0, dtype=torch.long)
    return step, {"layers": [Cache(empty), (table[:, :3], table[:, 3:])]}


def test_states_are_nested_and_a_cache_does_not_grow_for_the_caller(table_model):
    plain = table_model(4, batch=3)
    nested = cached(plain[1]["table"])
    options = {"first": torch.tensor([BOS, 2, 3]), "eos": EOS, "max_length": 6}
    for _ in range(2):  # the second time from the same state
        texts = [
            (
                generation.greedy(*model, **options),
                generation.sample(*model, generator=torch.Generator().manual_seed(0), **options),
                *generation.beam(*model, width=3, **options),
            )
            for model in (plain, nested)
        ]
        for one, other in zip(*texts, strict=True):
            assert torch.equal(one, other)
        assert nested[1]["layers"][0].tokens.shape == (3, 0)


def test_select_takes_rows_of_every_part():
    a, b = torch.arange(6).view(3, 2), torch.arange(3)
    got = generation.select({"a": [a, (b,)], "cache": Cache(a)}, torch.tensor([2, 0, 2]))
    assert got["a"][0].tolist() == [[4, 5], [0, 1], [4, 5]]
    assert isinstance(got["a"][1], tuple)
    assert got["a"][1][0].tolist() == [2, 0, 2]
    assert got["cache"].tokens.tolist() == [[4, 5], [0, 1], [4, 5]]
    with pytest.raises(ValueError, match="not <class 'int'>"):
        generation.select({"a": 3}, torch.tensor([0]))


def test_writing_runs_on_the_meta_device():
    def step(token, state):
        return torch.zeros(len(token), V, device="meta"), state

    state = [torch.zeros(2, 3, device="meta")]
    options = {"first": BOS, "eos": EOS, "max_length": 20}
    generator = torch.Generator().manual_seed(0)
    texts = (
        generation.greedy(step, state, **options),
        generation.sample(step, state, generator=generator, top_k=2, top_p=0.9, **options),
        generation.beam(step, state, width=3, **options)[0],
    )
    for text in texts:
        assert text.shape == (2, 20)
        assert text.device.type == "meta"


def test_bad_input_is_refused(table_model):
    step, state = table_model(0)
    options = {"first": BOS, "eos": EOS, "max_length": 5}
    with pytest.raises(ValueError, match="at least 1 wide, not 0"):
        generation.beam(step, state, width=0, **options)
    generator = torch.Generator().manual_seed(0)
    for name, bad, message in (
        ("temperature", 0, "must be positive and finite, not 0; for temperature 0 call greedy"),
        ("temperature", -1.0, "must be positive and finite, not -1.0"),
        ("temperature", math.nan, "must be positive and finite, not nan"),
        ("temperature", math.inf, "must be positive and finite, not inf"),
        ("top_k", 0, "must be at least 1, not 0"),
        ("top_p", 0.0, "must be above 0 and at most 1, not 0.0"),
        ("top_p", 1.1, "must be above 0 and at most 1, not 1.1"),
    ):
        with pytest.raises(ValueError, match=f"{name} {message}"):
            generation.sample(step, state, generator=generator, **{name: bad}, **options)
    with pytest.raises(ValueError, match="max_length must be at least 1, not 0"):
        generation.greedy(step, state, first=BOS, max_length=0)
    with pytest.raises(ValueError, match=r"pass `first` as a tensor \(B,\)"):
        generation.greedy(step, [Cache(torch.zeros(1, 0))], first=BOS, max_length=3)
