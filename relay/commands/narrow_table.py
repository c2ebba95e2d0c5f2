"""Tables for windows that are too narrow for them: whole columns are left out and named, and no figure is cut short."""

from collections.abc import Iterator

from rich.console import RenderableType
from rich.table import Column, Table
from rich.text import Text

LEAST_PLOT = 4
"""The width that anything but text has at least."""


def narrowed(table: Table, width: int, least_first: int | None = None) -> Iterator[RenderableType]:
    """Yield the table without the columns on the right that do not fit, and a line that names those.

    The first column always stays. It may be cut to `least_first` characters before others are left out.
    """
    widths = [_width(column) for column in table.columns]
    _, right, _, left = table.padding
    gap = right if table.collapse_padding else left + right
    first = widths[0] if least_first is None else min(widths[0], least_first)
    shown = len(widths)
    while shown > 1 and first + sum(gap + one for one in widths[1:shown]) > width:
        shown -= 1
    left_out = [_name(column) for column in table.columns[shown:]]
    del table.columns[shown:]
    table.columns[0].max_width = max(1, width - sum(gap + one for one in widths[1:shown]))
    yield table
    if left_out:
        yield left_out_line(left_out)


def left_out_line(names: list[str]) -> Text:
    """Return the line that names columns which are not shown."""
    return Text(f"… a wider window also shows: {', '.join(names)}", "dim")


def _name(column: Column) -> str:
    return str(column.header).replace("\n", " and ").lower()


def _width(column: Column) -> int:
    cells = [Text(str(column.header)), *column.cells]
    return max(max((line.cell_len for line in _text(cell).split("\n")), default=0) for cell in cells)


def _text(cell: RenderableType) -> Text:
    return cell if isinstance(cell, Text) else Text(cell if isinstance(cell, str) else " " * LEAST_PLOT)
