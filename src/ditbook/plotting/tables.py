"""Tables of numbers, in which what was measured can differ between machines."""

from __future__ import annotations

import html
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from IPython.display import HTML


def table(columns: Mapping[str, Sequence[object]], *, measured: Collection[str] = (), caption: str = "") -> HTML:
    """A table as plain HTML. The first column names the rows.

    Cells of measured columns carry the class `measured`: when notebooks are checked, their contents are not compared,
    so an `assert` in the same cell must hold the numbers to a band.

    Args:
        columns: for each heading, its entries from top to bottom; numbers are formatted by the caller.
        measured: headings of the columns whose entries were measured.
        caption: what the table shows, written above it.

    Raises:
        ValueError: no column, columns of different length, or a measured heading that is not there.
    """
    from IPython.display import HTML

    lengths = {name: len(entries) for name, entries in columns.items()}
    if not lengths or len(set(lengths.values())) > 1:
        raise ValueError(f"a table needs columns of one length, got {lengths}")
    if unknown := set(measured) - set(columns):
        raise ValueError(f"measured columns {sorted(unknown)} are not among {list(columns)}")
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in columns)
    lines = ["<table>", f"<thead><tr>{head}</tr></thead>", "<tbody>"]
    if caption:
        lines.insert(1, f"<caption>{html.escape(caption)}</caption>")
    for row in zip(*columns.values(), strict=True):
        cells = "".join(
            _cell(entry, heading in measured, first=not index)
            for index, (heading, entry) in enumerate(zip(columns, row, strict=True))
        )
        lines.append(f"<tr>{cells}</tr>")
    return HTML("\n".join([*lines, "</tbody>", "</table>"]))


def _cell(entry: object, measured: bool, first: bool) -> str:
    text = html.escape(str(entry))
    if measured:
        return f'<td class="measured">{text}</td>'
    return f'<th scope="row">{text}</th>' if first else f"<td>{text}</td>"
