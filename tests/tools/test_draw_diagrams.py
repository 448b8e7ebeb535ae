"""The drawings of the book, which are made by code."""

from draw_diagrams import FOLDER, drawings


def test_the_drawings_are_those_that_the_code_draws():
    paths = [*FOLDER.glob("figures/*.svg"), FOLDER / "logo.svg", FOLDER / "favicon.svg"]
    assert {path.relative_to(FOLDER).as_posix(): path.read_text(encoding="utf-8") for path in paths} == drawings()
