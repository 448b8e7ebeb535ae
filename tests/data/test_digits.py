import numpy as np
import pytest
from sklearn.datasets import load_digits

from ditbook.data import digits


def test_validation_is_every_sixth_scan_and_train_the_rest():
    scans = load_digits()
    train, validation = digits.load("train"), digits.load("validation")
    assert (len(train), len(validation)) == (1498, 299)
    assert validation["label"] == scans.target[5::6].tolist()
    rest = [index for index in range(1797) if index % 6 != 5]
    assert train["label"] == scans.target[rest].tolist()


def test_pixels_are_the_scans_rounded_to_bytes():
    scans = load_digits().images[5::6]
    pictures = list(digits.load("validation")["image"])
    assert {(picture.mode, picture.size) for picture in pictures} == {("L", (8, 8))}
    pixels = np.stack([np.asarray(picture) for picture in pictures])
    assert pixels.max() == 255
    np.testing.assert_array_equal(pixels, [[[round(p * 255 / 16) for p in row] for row in scan] for scan in scans])


def test_labels_have_names():
    assert digits.load("validation").features["label"].names == list("0123456789")


def test_unknown_split_names_the_two():
    with pytest.raises(ValueError, match=r"unknown split 'test'.*'train' and 'validation'"):
        digits.load("test")
