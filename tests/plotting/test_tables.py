import pytest
from bs4 import BeautifulSoup

from ditbook import plotting


def parsed(table):
    return BeautifulSoup(table.data, "html.parser")


def test_a_table_names_its_columns_and_rows():
    page = parsed(plotting.table({"block": ["a", "b<c"], "steps": [10, 20]}, caption="Two & two"))
    assert page.caption.text == "Two & two"
    assert [cell.text for cell in page.select("thead th[scope=col]")] == ["block", "steps"]
    assert [cell.text for cell in page.select("tbody th[scope=row]")] == ["a", "b<c"]
    assert [[cell.text for cell in row.select("td")] for row in page.select("tbody tr")] == [["10"], ["20"]]
    assert not page.select(".measured")
    assert not parsed(plotting.table({"x": [1]})).caption


def test_measured_columns_are_marked():
    page = parsed(plotting.table({"scale": [1, 2], "distance": ["0.5", "0.25"]}, measured=["distance"]))
    assert [cell.text for cell in page.select("td.measured")] == ["0.5", "0.25"]
    first = parsed(plotting.table({"distance": ["0.5"]}, measured=["distance"]))
    assert [cell.text for cell in first.select("td.measured")] == ["0.5"]


def test_bad_tables_are_refused():
    with pytest.raises(ValueError, match=r"columns of one length, got \{'a': 1, 'b': 2\}"):
        plotting.table({"a": [1], "b": [1, 2]})
    with pytest.raises(ValueError, match="columns of one length"):
        plotting.table({})
    with pytest.raises(ValueError, match=r"measured columns \['c'\] are not among \['a'\]"):
        plotting.table({"a": [1]}, measured=["c"])
