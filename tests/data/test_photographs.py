import pytest
import torch
from sklearn.datasets import load_sample_image

from ditbook.data import photographs, tensors


def test_the_splits_are_the_parts_of_the_photographs():
    train, validation = (photographs.load(split) for split in photographs.SPLITS)
    for row, name in enumerate(photographs.NAMES):
        whole = torch.from_numpy(load_sample_image(f"{name}.jpg").copy()).permute(2, 0, 1)
        parts = [split.with_format("torch")[row]["image"] for split in (train, validation)]
        assert torch.equal(torch.cat(parts, dim=2), whole)
        assert train.features["label"].int2str(row) == name


def test_the_right_parts_hold_what_they_should():
    """Means of red, green and blue, with room for another decoder of JPEG: trees before a sky, and a dark green."""
    x = tensors(photographs.load("validation"))["image"]
    assert x.shape == (2, 3, 427, 160)
    torch.testing.assert_close(
        x.mean((2, 3)), torch.tensor([[0.2, 0.222, 0.191], [-0.96, -0.535, -0.56]]), atol=0.01, rtol=0
    )


def test_an_unknown_split():
    with pytest.raises(ValueError, match="the photographs have the splits 'train' and 'validation'"):
        photographs.load("test")
