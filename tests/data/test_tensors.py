import io
import subprocess
import sys

import numpy as np
import pytest
import torch
from datasets import Dataset, Features, Image, Value
from PIL import Image as Picture

from ditbook import data
from ditbook.data import batches, digits, one_caption, tensors, to_float


def pictures(*made: Picture.Image, **columns: list) -> Dataset:
    return Dataset.from_dict({"image": list(made), **columns}).cast_column("image", Image())


def colour(height: int, width: int) -> Picture.Image:
    return Picture.fromarray(np.arange(height * width * 3, dtype=np.uint8).reshape(height, width, 3))


def test_digits_become_floats_in_range_and_whole_labels():
    dataset = digits.load("validation")
    out = tensors(dataset)
    assert out["image"].shape == (299, 1, 8, 8)
    assert out["image"].dtype == torch.float32
    assert out["label"].dtype == torch.int64
    assert out["label"].tolist() == dataset["label"]
    pixels = np.asarray(dataset[3]["image"], dtype=np.float64)
    np.testing.assert_allclose(out["image"][3, 0], pixels / 255 * 2 - 1, atol=1e-6)
    assert out["image"].aminmax() == (-1, 1)


def test_colour_channels_come_first_and_height_before_width():
    picture = colour(3, 5)
    out = tensors(pictures(picture))
    assert set(out) == {"image"}
    assert out["image"].shape == (1, 3, 3, 5)
    assert out["image"].is_contiguous()
    for channel, band in enumerate(picture.split()):
        np.testing.assert_allclose(out["image"][0, channel], np.asarray(band) / 127.5 - 1, atol=1e-6)


@pytest.mark.parametrize("kind", [np.array, torch.tensor])
def test_bytes_become_floats_from_minus_one_to_one(kind):
    out = to_float(kind(np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)))
    assert (out.shape, out.dtype) == ((2, 3, 4, 5), torch.float32)
    assert out[1, 2, 3, 4] == np.float32(119) / np.float32(127.5) - 1
    assert to_float(torch.tensor([[[[0]], [[255]]]], dtype=torch.uint8)).flatten().tolist() == [-1, 1]
    assert to_float(torch.zeros(2, 4, 5, 3, dtype=torch.uint8, device="meta")).shape == (2, 3, 4, 5)


@pytest.mark.parametrize("pixels", [np.zeros((2, 4, 5, 3)), np.zeros((4, 5, 3), dtype=np.uint8)])
def test_what_is_not_bytes_of_four_axes_is_refused(pixels):
    with pytest.raises(ValueError, match=r"expected bytes, torch.uint8 of shape \(images, .*, not torch\."):
        to_float(pixels)


def test_a_format_set_by_the_reader_does_not_matter():
    dataset = digits.load("validation")
    assert torch.equal(tensors(dataset.with_format("torch"))["image"], tensors(dataset)["image"])


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (Picture.new("L", (4, 4)), r"row 1: the image is 4×4 pixels of mode L, but row 0 is 4×4 pixels of mode RGB"),
        (colour(4, 6), r"row 1: the image is 4×6 pixels of mode RGB, but row 0 is 4×4"),
        (Picture.new("RGBA", (4, 4)), r"row 1: expected a PIL image of mode L or RGB, found an image of mode RGBA"),
    ],
)
def test_a_row_that_does_not_fit_is_named(second, message):
    with pytest.raises(ValueError, match=message):
        tensors(pictures(colour(4, 4), second))


def test_a_row_without_or_with_a_corrupt_picture_is_named():
    with pytest.raises(ValueError, match=r"row 1: expected a PIL image of mode L or RGB, found a NoneType"):
        tensors(pictures(colour(4, 4), None))
    buffer = io.BytesIO()
    colour(4, 4).save(buffer, "PNG")
    rows = [{"bytes": buffer.getvalue(), "path": None}, {"bytes": buffer.getvalue()[:30], "path": None}]
    with pytest.raises(ValueError, match=r"row 1: the image cannot be decoded"):
        tensors(Dataset.from_dict({"image": rows}).cast_column("image", Image()))


def test_empty_and_foreign_datasets_are_refused():
    with pytest.raises(ValueError, match="empty"):
        tensors(Dataset.from_dict({"image": []}, features=Features({"image": Image()})))
    with pytest.raises(ValueError, match="no column `image`; it has `text`"):
        tensors(Dataset.from_dict({"text": ["a"]}, features=Features({"text": Value("string")})))


@pytest.mark.parametrize("label", ["cat", None])
def test_a_label_that_is_no_class_number_is_named(label):
    with pytest.raises(ValueError, match=r"row 0: the label is .*class_encode_column"):
        tensors(pictures(colour(2, 2), label=[label]))


def test_more_than_the_largest_size_is_refused(monkeypatch):
    """Ten images of 4×6×3 floats are 2,880 bytes."""
    dataset = pictures(*[colour(4, 6)] * 10)
    monkeypatch.setattr(data, "LARGEST", 2880)
    assert tensors(dataset)["image"].nbytes == 2880
    monkeypatch.setattr(data, "LARGEST", 2879)
    with pytest.raises(ValueError, match=r"10 images of 4×6 .* of 0\.0 GiB, more than 0\.0: .*by `data\.batches`"):
        tensors(dataset)


def test_a_stream_is_refused():
    with pytest.raises(ValueError, match=r"the dataset is a stream.*`data\.batches`"):
        tensors(digits.load("validation").to_iterable_dataset())


@pytest.mark.parametrize("stream", [False, True])
def test_batches_show_every_row_in_another_order_at_each_pass(stream):
    rows = pictures(
        *(Picture.new("L", (2, 2), n) for n in range(12)), label=list(range(12)), caption=list("abcdefghijkl")
    )
    dataset = rows.to_iterable_dataset() if stream else rows
    endless = batches(dataset, 4, torch.Generator().manual_seed(0))
    passes = [[next(endless) for _ in range(3)] for _ in range(3)]
    orders = [torch.cat([batch["label"] for batch in part]).tolist() for part in passes]
    assert [sorted(order) for order in orders] == [list(range(12))] * 3
    assert len(set(map(tuple, orders))) == 3
    for batch in passes[0]:
        assert (batch["image"].shape, batch["image"].dtype) == ((4, 1, 2, 2), torch.float32)
        assert torch.equal(batch["image"][:, 0, 0, 0], batch["label"] / 127.5 - 1)
        assert batch["caption"] == ["abcdefghijkl"[n] for n in batch["label"]]
    again = batches(dataset, 4, torch.Generator().manual_seed(0))
    assert next(again)["label"].tolist() == orders[0][:4]


def test_the_last_rows_of_a_pass_are_left_out_and_a_batch_is_never_short():
    endless = batches(pictures(*[colour(2, 2)] * 5), 2, torch.Generator().manual_seed(0))
    assert {len(next(endless)["image"]) for _ in range(7)} == {2}
    with pytest.raises(ValueError, match="fewer rows than a batch of 6"):
        next(batches(pictures(*[colour(2, 2)] * 5), 6, torch.Generator()))


def test_a_batch_of_two_sizes_names_the_row():
    endless = batches(pictures(colour(2, 2), colour(2, 4)), 2, torch.Generator())
    with pytest.raises(ValueError, match=r"row 1: the image is 2×. .*; make all images one size and mode with"):
        next(endless)


def test_one_of_several_captions_is_as_likely_as_another():
    generator = torch.Generator().manual_seed(0)
    assert one_caption({"caption": "a star"}, generator) == "a star"
    found = [one_caption({"caption": ["a", "b", "c"]}, generator) for _ in range(3000)]
    assert all(abs(found.count(caption) - 1000) < 100 for caption in "abc")
    for none in ([], None):
        with pytest.raises(ValueError, match="the row has no caption"):
            one_caption({"caption": none}, generator)
    rows = pictures(*[colour(2, 2)] * 8, caption=[["a", "b"]] * 8)
    assert set(next(batches(rows, 8, generator))["caption"]) == {"a", "b"}


def test_importing_the_package_is_light():
    code = (
        "import sys, ditbook.data.digits, ditbook.data.user_images;"
        "print({'torch', 'datasets', 'sklearn'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
