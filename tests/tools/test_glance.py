"""The page with a row for each chapter is up to date, and what it says of a chapter is what the chapter does."""

import glance
import pytest
from chapter import Chapter


def test_the_page_is_up_to_date():
    assert glance.PAGE.read_text(encoding="utf-8") == glance.page(), "run `make book` and commit book/chapters.md"


@pytest.fixture
def chapter(tmp_path):
    cells = [
        {"cell_type": "code", "source": "if True:\n    %pip install nothing"},
        {"cell_type": "code", "source": "from ditbook.data import digits\nfrom ditbook.training.tasks import manual"},
        {"cell_type": "code", "source": 'weights.load("dit-digits")\n[f"dit-{data}-latent" for data in worlds]'},
        {"cell_type": "code", "source": 'print("unet-digits is not loaded here", f"{worlds}")'},
    ]
    return Chapter(tmp_path / "16_title.ipynb", 0, cells)


def test_weights_are_those_that_the_code_names(chapter):
    assert glance.weights(chapter) == ["dit-digits", "dit-shapes-latent"]


def test_worlds_are_those_that_the_code_imports(chapter):
    assert glance.worlds(chapter) == ["the manual", "8×8 digits"]


def test_every_chapter_has_a_time(monkeypatch, tmp_path):
    (tmp_path / "book").mkdir()
    (tmp_path / "notebooks").symlink_to(glance.ROOT / "notebooks")
    (tmp_path / "book" / "times.toml").write_text('"01" = 50\n')
    monkeypatch.setattr(glance, "ROOT", tmp_path)
    with pytest.raises(ValueError, match="times"):
        glance.page()
