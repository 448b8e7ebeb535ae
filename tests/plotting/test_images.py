import base64
import html
import io
import json
import re
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image

from ditbook import plotting


def drawn(fig) -> np.ndarray:
    """The page pixels of a figure, (H, W, 3)."""
    buffer = io.BytesIO()
    fig.savefig(buffer, dpi=72)
    return np.asarray(Image.open(buffer).convert("RGB"))


class TestGrid:
    def test_every_pixel_is_an_equal_square_of_the_right_grey(self):
        images = torch.linspace(-1, 1, 5 * 4 * 4, dtype=torch.float64).reshape(5, 1, 4, 4)
        page = drawn(plotting.grid(images, columns=3, scale=4))
        gap = plotting.GAP
        assert page.shape == (gap + 2 * (16 + gap), gap + 3 * (16 + gap), 3)
        for index in range(5):
            top, left = gap + index // 3 * (16 + gap), gap + index % 3 * (16 + gap)
            greys = np.rint((images[index, 0].numpy() + 1) * 127.5).repeat(4, 0).repeat(4, 1)
            np.testing.assert_allclose(page[top : top + 16, left : left + 16, 0], greys, atol=1)
        assert (page[:gap] == 255).all()
        assert (page[gap + 16 + gap :, 2 * (16 + gap) :] == 255).all()  # the sixth place stays empty

    def test_colour_keeps_its_channels_and_values_outside_are_clipped(self):
        image = torch.tensor([7.0, 0.0, -3.0]).reshape(1, 3, 1, 1).expand(1, 3, 4, 4)
        page = drawn(plotting.grid(image, scale=4))
        assert page[plotting.GAP + 8, plotting.GAP + 8].tolist() == [255, 128, 0]

    def test_a_tensor_with_gradient_or_of_bfloat16_and_an_array_draw_the_same(self):
        image = torch.tensor([-1.0, 1.0]).reshape(1, 1, 1, 2)
        expected = drawn(plotting.grid(image))
        for other in (image.clone().requires_grad_(), image.bfloat16(), image.numpy()):
            np.testing.assert_array_equal(drawn(plotting.grid(other)), expected)

    def test_rows_are_even_and_fit_the_page(self):
        page = drawn(plotting.grid(np.zeros((16, 1, 8, 8))))
        assert page.shape[1] <= plotting.PAGE
        starts = np.flatnonzero(np.diff((page[plotting.GAP + 1, :, 0] < 200).astype(int)) == 1)
        assert len(starts) == 8

    def test_titles_stand_above_their_images(self):
        fig = plotting.grid(np.zeros((3, 1, 8, 8)), titles=["guidance 1.0", "guidance 2.0", "three\nmore"])
        assert [axes.get_title() for axes in fig.axes] == ["guidance 1.0", "guidance 2.0", "three\nmore"]
        fig.canvas.draw()
        boxes = [axes.title.get_window_extent() for axes in fig.axes]
        assert all(box.y1 <= fig.bbox.y1 for box in boxes)
        assert all(left.x1 < right.x0 for left, right in pairwise(boxes))

    @pytest.mark.parametrize(
        ("images", "message"),
        [
            (np.zeros((1, 8, 8)), r"shape \(N, C, H, W\).*found \(1, 8, 8\)"),
            (np.zeros((1, 2, 8, 8)), "1 or 3 channels"),
            (np.zeros((0, 1, 8, 8)), r"found \(0, 1, 8, 8\)"),
            (np.full((1, 1, 8, 8), np.nan), "not finite"),
        ],
    )
    def test_what_is_no_image_is_refused(self, images, message):
        with pytest.raises(ValueError, match=message):
            plotting.grid(images)

    def test_titles_must_be_as_many_as_images_or_columns(self):
        with pytest.raises(ValueError, match="6 images in 3 columns need 3 or 6 titles, not 2"):
            plotting.grid(np.zeros((6, 1, 8, 8)), columns=3, titles=["a", "b"])

    def test_titles_of_columns_and_rows_stand_outside(self):
        fig = plotting.grid(np.zeros((6, 1, 8, 8)), titles=["a", "b", "c"], rows=["guidance 1", "guidance 2"])
        assert [axes.get_title() for axes in fig.axes] == ["a", "b", "c", "", "", ""]
        left = [axes.get_window_extent() for axes in fig.axes[::3]]
        assert [text.get_text() for text in fig.texts] == ["guidance 1", "guidance 2"]
        for text, box in zip(fig.texts, left, strict=True):
            extent = text.get_window_extent()
            assert extent.x0 >= 0
            assert extent.x1 < box.x0
            assert box.y0 < (extent.y0 + extent.y1) / 2 < box.y1

    @pytest.mark.parametrize("rows", [[], ["a", "b"]])
    def test_rows_must_be_full(self, rows):
        with pytest.raises(ValueError, match=f"3 images do not fill {len(rows)} rows evenly"):
            plotting.grid(np.zeros((3, 1, 8, 8)), rows=rows)


def test_filmstrip_is_one_row_in_order_with_labels():
    frames = torch.linspace(-1, 1, 10).reshape(10, 1, 1, 1).expand(10, 1, 8, 8)
    fig = plotting.filmstrip(frames, [f"t = {step}" for step in range(10)])
    assert [axes.get_title() for axes in fig.axes] == [f"t = {step}" for step in range(10)]
    assert len({axes.get_position().y0 for axes in fig.axes}) == 1
    page = drawn(fig)
    assert page.shape[1] <= plotting.PAGE
    edges = [round(axes.get_position().x0 * page.shape[1]) for axes in fig.axes]
    greys = [page[-plotting.GAP - 8, edge + 4, 0] for edge in edges]
    assert greys == sorted(greys)
    assert (greys[0], greys[-1]) == (0, 255)


class Slider(HTMLParser):
    """Collects the tags of the slider and their attributes."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def __getitem__(self, tag):
        return next(attributes for name, attributes in self.tags if name == tag)


class TestSlider:
    frames = torch.linspace(-1, 1, 3 * 3 * 2 * 4).reshape(3, 3, 2, 4)
    labels = ("t = 0", 'a "b" & <i>', "t = 999")

    def make(self, **changes):
        given = {"frames": self.frames, "labels": self.labels, "alt": 'A "digit" fades', "id": "ch10-noise"} | changes
        return plotting.slider(**given).data

    def test_the_sprite_holds_all_frames_side_by_side(self):
        png = re.search(r"base64,([^)]+)\)", self.make())
        sprite = np.asarray(Image.open(io.BytesIO(base64.b64decode(png[1]))))
        assert sprite.shape == (2, 12, 3)
        expected = np.rint((self.frames.double().numpy() + 1) * 127.5).transpose(0, 2, 3, 1)
        for index in range(3):
            np.testing.assert_allclose(sprite[:, 4 * index : 4 * index + 4], expected[index], atol=1)

    def test_it_is_labelled_for_keyboard_and_screen_reader(self):
        tags = Slider(self.make())
        box, window = (attributes for name, attributes in tags.tags if name == "div")
        assert box["id"] == "ch10-noise"
        assert json.loads(box["data-labels"]) == list(self.labels)
        assert window["role"] == "img"
        assert window["aria-label"] == 'A "digit" fades'
        assert "image-rendering: pixelated" in window["style"]
        bar = tags["input"]
        assert (bar["type"], bar["min"], bar["max"], bar["step"], bar["value"]) == ("range", "0", "2", "1", "0")
        assert bar["aria-valuetext"] == "t = 0"
        assert tags["label"]["for"] == bar["id"]
        assert "aria-valuetext" in bar["oninput"]

    def test_it_needs_nothing_from_elsewhere_and_keeps_the_text_colour_of_the_page(self):
        text = self.make()
        assert "<script" not in text
        assert "http" not in text
        assert re.findall(r"[^-]color: (\w+)", text) == ["inherit"]

    def test_labels_cannot_break_the_markup(self):
        text = self.make(labels=['"><script>x</script>', "b", "c"])
        assert "<script" not in text
        assert html.unescape(Slider(text)["input"]["aria-valuetext"]).startswith('">')

    def test_the_same_frames_give_the_same_text(self):
        assert self.make() == self.make()

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"labels": ["a", "b"]}, "not 3 and 2"),
            ({"frames": np.zeros((1, 1, 2, 2)), "labels": ["a"]}, "two frames or more"),
            ({"alt": "A digit"}, "10 characters"),
            ({"id": '1"x'}, "must be a letter"),
            ({"frames": np.zeros((3, 2, 2))}, r"shape \(N, C, H, W\)"),
        ],
    )
    def test_bad_input_is_refused(self, changes, message):
        with pytest.raises(ValueError, match=message):
            self.make(**changes)
