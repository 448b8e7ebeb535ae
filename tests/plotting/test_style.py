import base64
import io

import IPython.display
import matplotlib as mpl
import pytest
from matplotlib import pyplot as plt
from PIL import Image

from ditbook import plotting

ALT = "Two lines that cross"


@pytest.fixture
def shown(monkeypatch):
    """Collects the images that `show` displays, and what it says of them; `Image` takes what that of Colab takes."""
    seen = []

    class Image7(IPython.display.Image):
        def __init__(self, data, format, width):
            super().__init__(data=data, format=format, width=width)

    monkeypatch.setattr("IPython.display.Image", Image7)
    monkeypatch.setattr("IPython.display.display", lambda image, metadata: seen.append((image, metadata)))
    return seen


def lines():
    fig, axes = plt.subplots()
    axes.plot([0, 1], [0, 1])
    axes.plot([0, 1], [1, 0])
    axes.set(title="Lines", xlabel="x")
    return fig


class TestShow:
    def test_the_picture_carries_alt_text_and_half_its_width(self, shown):
        plotting.use_style()
        plotting.show(lines(), alt=f"  {ALT} ")
        image, metadata = shown[0]
        png, own = image._repr_png_()
        png = base64.b64decode(png) if isinstance(png, str) else png
        picture = Image.open(io.BytesIO(png))
        assert (own, metadata) == ({"width": 576}, {"image/png": {"alt": ALT}})
        assert picture.width == 1152

    def test_the_same_figure_gives_the_same_bytes_on_an_opaque_background(self, shown):
        plotting.use_style()
        mpl.rcParams["savefig.transparent"] = True
        plotting.show(lines(), alt=ALT)
        plotting.show(lines(), alt=ALT)
        first, second = (image.data for image, _ in shown)
        assert first == second
        picture = Image.open(io.BytesIO(first))
        assert picture.mode == "RGB"
        assert picture.getpixel((0, 0)) == (255, 255, 255)
        assert "Software" not in picture.info

    def test_the_figure_is_closed(self, shown):
        plotting.show(lines(), alt=ALT)
        assert plt.get_fignums() == []

    @pytest.mark.parametrize("alt", ["", "A figure", " " * 20])
    def test_alt_text_that_says_nothing_is_refused(self, alt, shown):
        with pytest.raises(ValueError, match="10 characters"):
            plotting.show(lines(), alt=alt)
        assert shown == []
        plt.close("all")


def test_style_sets_font_background_and_colours():
    plotting.use_style()
    assert mpl.rcParams["font.sans-serif"] == ["DejaVu Sans"]
    assert mpl.rcParams["axes.prop_cycle"].by_key()["color"] == list(plotting.COLORS.values())
    assert mpl.rcParams["figure.facecolor"] == "white"
    assert mpl.rcParams["font.size"] >= 11


def test_colours_are_those_of_okabe_and_ito():
    okabe_ito = {"#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7"}
    assert set(plotting.COLORS.values()) == okabe_ito


def test_log_ticks_are_plain_numbers_and_the_only_ones():
    ax = plt.subplots()[1]
    ax.plot([1, 5000], [0.5, 8])
    plotting.log_ticks(ax, x=[1, 10, 1000], y=[0.5, 4])
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert [label.get_text() for label in ax.get_xticklabels()] == ["1", "10", "1,000"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["0.5", "4"]
    assert ax.get_xticks(minor=True).tolist() == ax.get_yticks(minor=True).tolist() == []
    plotting.log_ticks(plt.subplots()[1], x=[1])
    plt.close("all")


@pytest.mark.parametrize(
    ("values", "written"),
    [
        ([1e-16, 0.01, 1, 1e4], ["$10^{-16}$", "$10^{-2}$", "$10^{0}$", "$10^{4}$"]),
        ([1e-3, 1, 1e5], ["0.001", "1", "100,000"]),
        ([2e-4, 1], ["0.0002", "1"]),
    ],
)
def test_log_ticks_that_reach_far_down_are_powers_of_ten(values, written):
    ax = plt.subplots()[1]
    plotting.log_ticks(ax, y=values)
    assert [label.get_text() for label in ax.get_yticklabels()] == written
    plt.close("all")
