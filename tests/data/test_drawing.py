from itertools import pairwise

import numpy as np
import pytest
from matplotlib.path import Path

from ditbook.data import drawing
from ditbook.data.drawing import OUTLINES, RGB, opacity, render, signed_distance
from ditbook.data.scene import COLOURS, RADII, SHAPES, SIDE, SIZES, Layout, Scene, Thing

GRID = np.linspace(-1.6, 1.6, 41) + 0.003
X, Y = np.meshgrid(GRID, GRID)
ANGLES = np.linspace(0, 2 * np.pi, 3_001)


def outline(shape):
    """Points along the outline, close together: (points, 2)."""
    if shape == "circle":
        return 0.95 * np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1)
    if shape == "moon":
        disc = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1)
        bite = 0.8 * disc + [0.55, -0.15]
        free = np.hypot(*(disc - [0.55, -0.15]).T) >= 0.8
        return np.concatenate([disc[free], bite[np.hypot(*bite.T) <= 1]])
    ends = [*OUTLINES[shape], OUTLINES[shape][0]]
    part = np.linspace(0, 1, 300)[:, None]
    return np.concatenate([np.array(a) * (1 - part) + np.array(b) * part for a, b in pairwise(ends)])


def alone(size="large", colour="white", shape="circle", place=(16, 16)):
    return Layout(Scene((Thing(size, colour, shape),)), (place,))


@pytest.mark.parametrize("shape", SHAPES)
def test_distance_is_that_to_the_nearest_point_of_the_outline(shape):
    points = outline(shape)
    brute = np.hypot(X[..., None] - points[:, 0], Y[..., None] - points[:, 1]).min(axis=2)
    found = signed_distance(shape, X, Y)
    if shape == "moon":  # two discs: exact but near the tips, and never too long
        assert (np.abs(found) <= brute + 1e-3).all()
        assert (np.abs(np.abs(found) - brute) < 1e-3).mean() > 0.7
    else:
        np.testing.assert_allclose(np.abs(found), brute, atol=6e-3)
        assert np.abs(np.abs(found) - brute).mean() < 1e-4


@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_negative_inside_and_nowhere_else(shape):
    if shape == "moon":
        inside = (np.hypot(X, Y) < 1) & (np.hypot(X - 0.55, Y + 0.15) > 0.8)
    else:
        inside = Path(outline(shape), closed=True).contains_points(np.stack([X, Y], axis=-1).reshape(-1, 2))
        inside = inside.reshape(X.shape)
    clear = np.abs(signed_distance(shape, X, Y)) > 1e-3
    assert ((signed_distance(shape, X, Y) < 0) == inside)[clear].all()
    assert 0.1 < inside.mean() < 0.4


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_pixel_is_covered_about_as_much_as_the_shape_covers_it(shape, size):
    fine = 16  # 256 points in each pixel
    at = ((np.arange(32 * fine) + 0.5) / fine - 16) / RADII[size]
    points = signed_distance(shape, *np.meshgrid(at, at)) < 0
    area = points.reshape(32, fine, 32, fine).mean(axis=(1, 3))
    found = opacity(size, shape, 32)[16:48, 16:48] / 255
    assert np.abs(found - area).max() < 0.4  # at the tips of a moon
    assert np.abs(found - area).sum() / area.sum() < 0.08


def test_no_pixel_is_near_the_edge_between_two_numbers():
    """So that a machine whose last bits differ would still draw the same bytes."""
    for side in (32, 64, 96, 128):
        for size in SIZES:
            for shape in SHAPES:
                value = opacity(size, shape, side) + 0.49
                assert np.abs(value - np.rint(value)).min() > 0.002, (side, size, shape)
                assert np.abs(opacity(size, shape, side)).max() == 255


def test_things_stay_in_the_square_of_their_size():
    for size in SIZES:
        for shape in SHAPES:
            (picture,) = render([alone(size, "white", shape, (16, 16))])
            box = picture[16 - RADII[size] : 16 + RADII[size], 16 - RADII[size] : 16 + RADII[size]]
            assert picture.sum() == box.sum() > 0


def test_pixels_by_hand():
    """A large square reaches 0.9 · 6 = 5.4 pixels from its centre: the pixel from 5 to 6 is covered by 0.4."""
    (picture,) = render([alone("large", "orange", "square", (10, 20))])
    for inside in ((20, 10), (20, 5), (20, 14), (15, 10), (24, 5)):
        assert picture[inside].tolist() == [255, 130, 0]
    for edge in ((20, 4), (20, 15), (14, 10), (25, 10)):
        assert picture[edge].tolist() == [102, 52, 0]
    for outside in ((20, 3), (20, 16), (13, 10), (26, 10)):
        assert not picture[outside].any()


def test_shapes_stand_upright():
    triangle, arrow, moon = (
        render([alone(shape=shape)])[0, ..., 0].astype(int) for shape in ("triangle", "arrow", "moon")
    )
    assert triangle[:16].sum() < triangle[16:].sum()  # wide at its foot
    assert arrow[:, 16:].sum() > arrow[:, :16].sum()  # its head points to the right
    assert moon[:, :16].sum() > 2 * moon[:, 16:].sum()  # opens to the right


def test_every_kind_of_thing_can_be_told_from_every_other():
    kinds = [(size, colour, shape) for size in SIZES for colour in COLOURS for shape in SHAPES]
    pictures = render([alone(*kind) for kind in kinds]).astype(float)
    apart = np.sqrt(((pictures[:, None, 8:24, 8:24] - pictures[None, :, 8:24, 8:24]) ** 2).mean(axis=(2, 3, 4)))
    np.fill_diagonal(apart, np.inf)
    assert apart.min() > 14  # grey levels, root mean square over 16×16 pixels
    assert set(RGB) == set(COLOURS)


def test_twice_the_side_shows_the_same_world():
    layouts = [
        alone("small", "yellow", "star", (9, 21)),
        Layout(
            Scene((Thing("large", "red", "moon"), Thing("small", "grey", "cross")), ("above",)), ((20, 8), (17, 26))
        ),
    ]
    small, large = render(layouts).astype(float), render(layouts, 64).astype(float)
    averaged = large.reshape(2, 32, 2, 32, 2, 3).mean(axis=(2, 4))
    assert np.abs(averaged - small).mean() < 1.0
    assert np.abs(np.roll(averaged, 1, axis=2) - small).mean() > 2.0
    for side in (0, 16, 33, 48):
        with pytest.raises(ValueError, match=f"multiple of 32, not {side}"):
            render(layouts, side)


def test_many_pictures_are_drawn_like_each_alone():
    many = [alone(SIZES[n % 2], COLOURS[n % 8], SHAPES[n * 5 % 8], (6 + n % 21, 6 + n * 3 % 21)) for n in range(1500)]
    together = render(many)
    for n in (0, 1, 700, 1023, 1024, 1499):
        np.testing.assert_array_equal(together[n], render([many[n]])[0])
    assert render([]).shape == (0, SIDE, SIDE, 3)
    assert drawing._stencils(32).dtype == np.uint8
