import io

import numpy as np
import pytest
from PIL import Image

from ditbook.data.images import ORIENTATION, prepare, to_mode

RNG = np.random.default_rng(0)


def noise(*shape):
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def stored(image, kind="PNG", **settings):
    """The image as it comes back from a file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **settings)
    return Image.open(io.BytesIO(buffer.getvalue()))


def corner(marked, mode="RGB"):
    """A white image of 8×6 pixels, one quarter black."""
    image = Image.new("RGB", (8, 6), "white")
    image.paste("black", {"upper left": (0, 0, 4, 3), "lower right": (4, 3, 8, 6)}[marked])
    return image.convert(mode)


class TestMode:
    def test_what_is_so_already_keeps_its_pixels(self):
        for image in (Image.fromarray(noise(5, 7, 3)), Image.fromarray(noise(5, 7))):
            np.testing.assert_array_equal(to_mode(image, image.mode), image)

    def test_grey_by_the_weights_of_itu_601_and_back(self):
        color = noise(9, 9, 3)
        grey = np.asarray(to_mode(Image.fromarray(color), "L"), dtype=float)
        np.testing.assert_allclose(grey, color @ [0.299, 0.587, 0.114], atol=1)
        back = np.asarray(to_mode(Image.fromarray(noise(4, 4)), "RGB"))
        assert (back == back[..., :1]).all()

    def test_alpha_lets_white_through(self):
        pixels = noise(6, 6, 4)
        alpha = pixels[..., 3:] / 255
        over_white = pixels[..., :3] * alpha + 255 * (1 - alpha)
        np.testing.assert_allclose(to_mode(Image.fromarray(pixels), "RGB"), over_white, atol=1)
        grey = np.asarray(to_mode(Image.fromarray(pixels[..., [0, 3]], "LA"), "L"), dtype=float)
        np.testing.assert_allclose(grey, (pixels[..., :1] * alpha + 255 * (1 - alpha))[..., 0], atol=1)

    def test_a_palette_with_and_without_a_transparent_color(self):
        image = Image.new("P", (4, 2), 1)
        image.putpalette([10, 20, 30, 200, 100, 50])
        image.putpixel((0, 0), 0)
        assert to_mode(stored(image), "RGB").getpixel((0, 0)) == (10, 20, 30)
        hidden = stored(image, transparency=0)
        assert to_mode(hidden, "RGB").getpixel((0, 0)) == (255, 255, 255)
        assert to_mode(hidden, "RGB").getpixel((1, 0)) == (200, 100, 50)
        assert to_mode(stored(image, "GIF"), "RGB").getpixel((1, 0)) == (200, 100, 50)

    def test_one_color_of_a_file_can_be_transparent(self):
        image = stored(Image.new("RGB", (2, 2), (9, 9, 9)), transparency=(9, 9, 9))
        assert to_mode(image, "RGB").getpixel((0, 0)) == (255, 255, 255)

    def test_cmyk_of_a_jpeg_file(self):
        inks = np.zeros((16, 16, 4), dtype=np.uint8)
        inks[..., 0] = 255  # cyan only: no red
        image = stored(Image.fromarray(inks, "CMYK"), "JPEG", quality=100)
        assert image.mode == "CMYK"
        np.testing.assert_allclose(np.asarray(to_mode(image, "RGB"), dtype=int)[8, 8], [0, 255, 255], atol=3)

    def test_16_bits_are_scaled_and_not_clipped(self):
        values = np.array([[0, 257, 32_896, 65_535]], dtype=np.uint16)
        assert np.asarray(to_mode(stored(Image.fromarray(values)), "L")).tolist() == [[0, 1, 128, 255]]
        assert np.asarray(to_mode(Image.fromarray(values.astype(np.int32)), "RGB"))[0, 3].tolist() == [255] * 3

    def test_black_and_white_of_one_bit(self):
        assert to_mode(stored(Image.new("1", (2, 2), 1)), "RGB").getpixel((0, 0)) == (255, 255, 255)

    def test_what_has_no_known_range_is_refused(self):
        with pytest.raises(ValueError, match="the range of mode F is not known; convert the image to 8 bits"):
            to_mode(Image.fromarray(np.ones((2, 2), dtype=np.float32)), "L")
        with pytest.raises(ValueError, match="pixels from 0 to 70000 are not of 16 bits"):
            to_mode(Image.fromarray(np.array([[0, 70_000]], dtype=np.int32)), "L")


class TestPrepare:
    def test_an_image_of_the_size_keeps_its_pixels(self):
        image = Image.fromarray(noise(8, 8, 3))
        ready, changes = prepare(image, 8, "RGB")
        np.testing.assert_array_equal(ready, image)
        assert changes == []

    def test_the_middle_is_kept_and_nothing_is_stretched(self):
        """A disc stays a disc, whatever stands left and right of it."""
        y, x = np.mgrid[:90, :300]
        disc = np.where(np.hypot(x - 149.5, y - 44.5) < 30, 255, 0).astype(np.uint8)
        disc[:, :100] = disc[:, 200:] = 128  # cut off
        for pixels in (disc, disc.T):
            ready, changes = prepare(Image.fromarray(pixels), 30, "L")
            assert ready.size == (30, 30)
            assert changes == ["reduced", "cropped"]
            inside = np.asarray(ready) > 127
            assert abs(inside.sum() - np.pi * 10**2) < 12
            assert inside.any(axis=0).sum() == inside.any(axis=1).sum() == 20
            assert not inside[:, [0, -1]].any()

    def test_reducing_averages_instead_of_skipping(self):
        """Stripes of one pixel become grey: without antialiasing they would be black, white or a moiré."""
        stripes = np.tile(np.array([0, 255], dtype=np.uint8), (64, 64))[:, :64]
        ready = np.asarray(prepare(Image.fromarray(stripes), 10, "L")[0], dtype=int)
        assert np.abs(ready - 127)[1:-1, 1:-1].max() < 8

    def test_it_is_lanczos_of_the_largest_square_in_the_middle(self):
        image = Image.fromarray(noise(48, 64, 3))
        ready, _ = prepare(image, 32, "RGB")
        np.testing.assert_array_equal(ready, image.resize((32, 32), Image.Resampling.LANCZOS, box=(8, 0, 56, 48)))

    def test_a_small_image_is_enlarged(self):
        ready, changes = prepare(Image.new("L", (2, 2), 77), 6, "L")
        assert np.asarray(ready).tolist() == [[77] * 6] * 6
        assert changes == ["enlarged"]

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_it_is_turned_as_the_camera_says(self, orientation):
        """The viewer should see the black quarter at the upper left."""
        turn = Image.Transpose
        ways = {
            2: 0,
            3: turn.ROTATE_180,
            4: 1,
            5: turn.TRANSPOSE,
            6: turn.ROTATE_90,
            7: turn.TRANSVERSE,
            8: turn.ROTATE_270,
        }
        upright = corner("upper left")
        image = upright.transpose(ways[orientation]) if orientation > 1 else upright
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        ready, changes = prepare(stored(image, "PNG", exif=exif), 6, "L")
        assert (np.asarray(ready)[1, 1], np.asarray(ready)[4, 4]) == (0, 255)
        assert ("turned" in changes) == (orientation > 1)

    def test_what_was_done_is_said(self):
        exif = Image.Exif()
        exif[ORIENTATION] = 6
        image = stored(Image.fromarray(noise(40, 20, 4), "CMYK"), "JPEG", exif=exif)
        assert prepare(image, 16, "RGB")[1] == ["turned", "converted from CMYK", "reduced", "cropped"]
        clear = stored(Image.new("L", (16, 16), 5), transparency=5)
        assert prepare(clear, 16, "L")[1] == ["converted from L with transparency"]
