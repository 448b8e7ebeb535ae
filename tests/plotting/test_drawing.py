import matplotlib as mpl
import pytest
from matplotlib import pyplot as plt

from ditbook import plotting


class TestDrawing:
    @pytest.fixture
    def ax(self):
        fig, ax = plt.subplots()
        yield ax
        plt.close(fig)

    def test_a_box_is_centred_and_coloured_by_its_kind(self, ax):
        plotting.box(ax, 2.0, 3.0, "attention", "told", width=1.0, height=0.5)
        (patch,), (text,) = ax.patches, ax.texts
        assert patch.get_bbox().bounds == (1.5, 2.75, 1.0, 0.5)
        assert mpl.colors.to_hex(patch.get_facecolor()) == plotting.KINDS["told"][0]
        assert (text.get_text(), text.get_position(), text.get_ha(), text.get_va()) == (
            "attention", (2.0, 3.0), "center", "center",
        )  # fmt: skip

    def test_an_arrow_runs_through_its_points_and_ends_in_a_head(self, ax):
        plotting.arrow(ax, (0, 0), (0, 2), (3, 2))
        assert ax.lines[0].get_xydata().tolist() == [[0, 0], [0, 2]]
        assert (ax.texts[0].xyann, ax.texts[0].xy) == ((0, 2), (3, 2))
        assert ax.texts[0].arrow_patch is not None

    def test_an_unknown_kind_is_refused(self, ax):
        with pytest.raises(ValueError, match="no kind of box 'x'; there are data, learned, told, fixed"):
            plotting.box(ax, 0, 0, "a", "x")
