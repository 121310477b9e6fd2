"""Tables whose rows never wrap: one column gives way, then whole columns do, the least needed first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from nnopt_cli.report.text import end, middle

if TYPE_CHECKING:
    from rich.text import Text

GAP = 2  # blanks between columns
NARROW = 28  # a flexible column is not squeezed below this; other columns go first


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        heading: shown above it.
        align: `left` for words, `right` for figures.
        flexible: its text is cut where the table is too wide; at most one column.
        cut: where; both ends of a tensor's name tell most, the beginning of a list does.
        drop: 0 to keep always; of the others the highest goes first where space is short.
        style: rich style of its cells; a cell that is a `Text` brings its own.
    """

    heading: str = ""
    align: Literal["left", "right"] = "right"
    flexible: bool = False
    cut: Literal["middle", "end"] = "middle"
    drop: int = 0
    style: str = ""


def lines(
    columns: Sequence[Column],
    rows: Sequence[Sequence[str | Text]],
    width: int,
    *,
    indent: int = 2,
    ellipsis: str = "…",
) -> list[Text]:
    """Lay `rows` out under their headings (left out where all are empty), each line at most `width` cells."""
    from rich.text import Text

    cells = [[c if isinstance(c, Text) else Text(c, columns[i].style) for i, c in enumerate(r)] for r in rows]
    used = [i for i, c in enumerate(columns) if c.heading or any(row[i].plain for row in cells)]
    widths = {i: _natural(columns[i], [row[i] for row in cells]) for i in used}
    widths = _fit(columns, widths, width - indent)
    heading = [Text(column.heading, "dim") for column in columns]
    shown = [heading, *cells] if any(column.heading for column in columns) else cells
    out = []
    for row in shown:
        line = Text(" " * indent, end="")
        for place, (i, cell_width) in enumerate(widths.items()):
            cell = _sized(row[i], cell_width, columns[i], ellipsis)
            line.append(" " * GAP if place else "").append_text(cell)
        line.rstrip()
        line.truncate(width, overflow="crop")  # only where even the narrowest table is too wide
        out.append(line)
    return out


def _natural(column: Column, cells: Sequence[Text]) -> int:
    from rich.cells import cell_len

    return max([cell_len(column.heading), *(cell.cell_len for cell in cells)])


def _fit(columns: Sequence[Column], widths: dict[int, int], room: int) -> dict[int, int]:
    """Widths that fit into `room`: squeeze the flexible column to NARROW, then drop, then squeeze on."""
    widths = dict(widths)
    flexible = next((i for i in widths if columns[i].flexible), -1)

    def excess() -> int:
        return sum(widths.values()) + GAP * (len(widths) - 1) - room

    def squeeze(least: int) -> None:
        if flexible in widths and excess() > 0:
            widths[flexible] = max(min(least, widths[flexible]), widths[flexible] - excess())

    natural = widths.get(flexible, 0)
    squeeze(NARROW)
    while excess() > 0 and (loose := [i for i in widths if columns[i].drop]):
        del widths[max(loose, key=lambda i: columns[i].drop)]
        if flexible in widths:
            widths[flexible] = natural  # there may be room for more of it again
        squeeze(NARROW)
    squeeze(4)
    return widths


def _sized(cell: Text, width: int, column: Column, ellipsis: str) -> Text:
    from rich.text import Text

    if cell.cell_len > width:
        shorten = middle if column.cut == "middle" else end
        cell = Text(shorten(cell.plain, width, ellipsis), cell.style)
    cell = cell.copy()
    blanks = width - cell.cell_len
    return Text(" " * blanks).append_text(cell) if column.align == "right" else cell.append(" " * blanks)
