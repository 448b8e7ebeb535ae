import hashlib

import pytest

from ditbook.data.splits import check_split, held_out


def test_the_first_eight_digits_of_the_hash_decide():
    for n in range(500):
        first = hashlib.sha256(f"row {n}".encode()).hexdigest()[:8]
        for one_in in (3, 8, 10):
            assert held_out(f"row {n}", one_in) == (int(first, 16) % one_in == 0)


def test_about_one_row_in_so_many_is_held_out():
    for one_in in (4, 10, 50):
        fraction = sum(held_out(f"é {n}", one_in) for n in range(20_000)) / 20_000
        assert abs(fraction * one_in - 1) < 0.12


def test_unknown_splits_are_refused_with_those_that_there_are():
    check_split("b", ("a", "b"), "the letters")
    with pytest.raises(ValueError, match=r"^unknown split 'z': the letters have the splits 'a' and 'b'$"):
        check_split("z", ("a", "b"), "the letters")
    with pytest.raises(ValueError, match=r"the letters have the splits 'a', 'b' and 'c'$"):
        check_split("z", ("a", "b", "c"), "the letters")
