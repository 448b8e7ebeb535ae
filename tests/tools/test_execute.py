"""A notebook is run where it stands, and what is stored depends on its code alone."""

import json

import execute
import nbformat
import pytest

IMAGE = {"data": {"image/png": "aGk="}, "metadata": {"image/png": {"alt": "a digit", "width": 300}}}


@pytest.mark.parametrize("name", ["16", "16_dit", "16_dit.ipynb", str(execute.FOLDER / "16_dit.ipynb")])
def test_a_notebook_is_found_by_number_stem_and_path(name):
    assert execute.find(name) == execute.FOLDER / "16_dit.ipynb"


def test_an_unknown_notebook_is_answered_by_those_that_exist():
    with pytest.raises(SystemExit, match="no notebook '99'; there are 01_rnn, "):
        execute.find("99")


def cell(*images, **metadata):
    outputs = [nbformat.v4.new_output("display_data", **image) for image in images]
    return nbformat.v4.new_code_cell("show()", outputs=outputs, metadata=metadata)


def test_the_page_gets_each_text_once_and_the_width_if_there_is_one():
    other = {"data": {"image/png": "aGk="}, "metadata": {"image/png": {"alt": "a curve", "width": 200}}}
    assert execute.image_options(cell()) == {}
    assert execute.image_options(cell(IMAGE, IMAGE)) == {"alt": "a digit", "width": "300px"}
    assert execute.image_options(cell(IMAGE, other)) == {"alt": "a digit; a curve"}


def test_what_differs_between_two_runs_is_left_out():
    notebook = nbformat.v4.new_notebook(
        cells=[
            cell(IMAGE, execution={"iopub.execute_input": "now"}),
            cell(mystnb={"image": {"alt": "of a former run"}}),
        ],
        metadata={"language_info": {"name": "python", "version": "3.11.7"}},
    )
    execute.normalise(notebook)
    assert notebook.metadata == execute.METADATA
    assert [cell.metadata for cell in notebook.cells] == [
        {"mystnb": {"image": {"alt": "a digit", "width": "300px"}}},
        {},
    ]


def test_two_runs_store_the_same_bytes(tmp_path):
    (tmp_path / "beside.txt").write_text("the folder of the notebook")
    code = "print(open('beside.txt').read())\nprint(1)"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code, id="ch01-01")])
    path = tmp_path / "01_a.ipynb"
    nbformat.write(notebook, path)
    stored = [(execute.execute(path), path.read_bytes())[1] for _ in range(2)]
    assert stored[0] == stored[1]
    (run,) = json.loads(stored[0])["cells"]
    assert "".join(run["outputs"][0]["text"]) == "the folder of the notebook\n1\n"
