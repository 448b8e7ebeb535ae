import math
from collections import Counter

import pytest
import torch

from ditbook.data import mappings
from ditbook.data.mappings import SYMBOLS, VOCABULARY


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_every_sequence_has_a_mapping_of_its_own():
    tokens = mappings.sequences(500, 17, generator())
    assert tokens.shape == (500, 34)
    seen = set()
    for row in tokens.tolist():
        pairs = set(zip(row[::2], row[1::2], strict=True))
        keys, values = zip(*pairs, strict=True)
        assert len(pairs) == len(set(keys)) == len(set(values))  # one value for each key, and no value twice
        assert max(keys) < SYMBOLS <= min(values)
        assert max(values) < VOCABULARY
        if len(pairs) > 5:
            seen.add(frozenset(pairs))
    assert len(seen) > 150


def test_few_keys_are_as_frequent_as_many_on_a_logarithmic_scale():
    tokens = mappings.sequences(20_000, 200, generator())  # long, so that every key in use occurs
    used = Counter(len(set(row)) for row in tokens[:, ::2].tolist())
    assert min(used) == 2
    assert max(used) == 16
    for n in (3, 6, 12):  # 2 · 8^u rounds to n for u between two logarithms
        wanted = math.log((n + 0.5) / (n - 0.5), 8)
        assert used[n] / 20_000 == pytest.approx(wanted, rel=0.1)


def test_prompts_end_with_any_key_after_different_ones():
    tokens, value = mappings.prompts(4000, 4, generator())
    assert tokens.shape == (4000, 9)
    shown = 0
    for row, answer in zip(tokens.tolist(), value.tolist(), strict=True):
        known = dict(zip(row[:-1:2], row[1::2], strict=True))
        assert len(known) == 4
        assert (known.get(row[-1]) == answer) == (answer in known.values())
        shown += row[-1] in known
    assert shown / 4000 == pytest.approx(4 / 16, abs=0.03)
    assert torch.bincount(tokens[:, -1], minlength=16).min() > 180
    assert mappings.prompts(3, 0, generator())[0].shape == (3, 1)
    assert {len(set(row)) for row in mappings.prompts(5, 16, generator())[0][:, :32:2].tolist()} == {16}


def test_sequences_are_read_in_letters_and_come_from_the_generator():
    assert mappings.decode([0, 31, 15, 16]) == "aPpA"
    assert torch.equal(mappings.sequences(5, 3, generator(4)), mappings.sequences(5, 3, generator(4)))
    with pytest.raises(ValueError, match="examples 17 must be 0 to 16"):
        mappings.prompts(1, 17, generator())
    with pytest.raises(ValueError, match="examples -1 must be 0 to 16"):
        mappings.best_accuracy(-1)
