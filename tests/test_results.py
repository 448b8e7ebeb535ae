import pytest

from ditbook import results


def test_an_unknown_experiment_is_refused():
    with pytest.raises(ValueError, match="no experiment named 'cats'; there are"):
        results.load("cats")
