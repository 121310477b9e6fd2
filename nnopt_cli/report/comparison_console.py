"""What differs between two models, on a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from nnopt_cli.report import numbers
from nnopt_cli.report.inspection_console import FORMATS
from nnopt_cli.report.page import Page
from nnopt_cli.report.table import Column

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from nnopt_cli.report.comparison import Comparison, Side, TensorPair

ORDER = ("changed", "equal", "identical", "shape", "only_a", "only_b")
WORDS = {"only_a": "only in A", "only_b": "only in B", "shape": "reshaped"}


def render(record: Comparison, console: Console, verbose: int = 0) -> None:
    """Show `record` on `console`; identical tensors are listed with `verbose` only."""
    page = Page(console)
    for letter, side in (("A", record.a), ("B", record.b)):
        page.line(page.text(letter, "bold"), "  ", page.text(side.path, "bold cyan"))
        page.line("   ", page.text(_side(page, side), "dim"))
    page.gap()
    page.prose(record.verdict, "bold")
    page.gap()
    _totals(page, record)
    tally = Counter[str](row.status for row in record.tensors)
    parts = [f"{numbers.count(tally[key])} {WORDS.get(key, key)}" for key in ORDER if tally[key]]
    page.heading("Tensors", page.joined(parts))
    shown = [row for row in record.having("identical", "equal", "changed") if verbose > 0 or _differs(row)]
    if shown:
        page.table(_columns(shown), [_row(page, row) for row in shown])
    _shapes(page, record.having("shape"))
    _missing(page, "Only in A", record.having("only_a"))
    _missing(page, "Only in B", record.having("only_b"))
    page.notes(record.notes)


def _differs(row: TensorPair) -> bool:
    return row.status != "identical"


def _side(page: Page, side: Side) -> str:
    under = f"weights under {'.'.join(side.key)}" if side.key else ""
    return page.joined((FORMATS.get(side.format, side.format), numbers.size(side.bytes), under))


def _totals(page: Page, record: Comparison) -> None:
    rows: list[tuple[str | Text, ...]] = [
        ("parameters", numbers.count(record.a.parameters), numbers.count(record.b.parameters))
    ]
    prunable = [row for row in record.tensors if row.prunable and not row.repeated and row.elements]
    total = sum(row.elements for row in prunable)
    if total:
        zeros_a, zeros_b = sum(row.zeros_a for row in prunable), sum(row.zeros_b for row in prunable)
        share_a, share_b = numbers.percent(zeros_a / total), numbers.percent(zeros_b / total)
        rows.append(("sparsity of prunable weights", share_a, share_b))
    rows.append(("bytes on disk", numbers.size(record.a.bytes), numbers.size(record.b.bytes)))
    page.table((Column(align="left"), Column("A"), Column("B")), rows)


def _columns(rows: Sequence[TensorPair]) -> list[Column]:
    """A figure that no row has takes no column; later ones give way first where space is short."""
    types = any(row.dtype_a != row.dtype_b for row in rows)
    return [
        Column("tensor", align="left", flexible=True),
        Column("dtypes" if types else "", align="left", drop=4),
        Column("changed"),
        Column("max |b-a|"),
        Column("relative", drop=5),
        Column("cosine", drop=6),
        Column("zeros added" if any(row.zeros_added for row in rows) else "", drop=2),
        Column("revived" if any(row.zeros_revived for row in rows) else ""),
        Column("survivors" if any(row.zeros_a or row.zeros_b for row in rows) else "", align="left", drop=3),
        Column("non-finite" if any(row.nonfinite for row in rows) else "", style="bold red"),
    ]


def _row(page: Page, row: TensorPair) -> list[str | Text]:
    name = row.name if row.name_b is None else f"{row.name} = {row.name_b}"
    arrow = f" {page.glyphs.arrow} "
    types = f"{row.dtype_a}{arrow}{row.dtype_b}" if row.dtype_a != row.dtype_b else ""
    sparse = row.zeros_a or row.zeros_b
    survivors = f"{numbers.count(row.survivors_changed)} changed" if row.survivors_changed else "identical"
    if row.status != "changed":
        said = "identical" if row.status == "identical" else "same values"
        return [name, types, page.text(said, "dim"), *[""] * 6, _odd(row)]
    return [
        name,
        types,
        numbers.percent(numbers.ratio(row.changed, row.elements)),
        numbers.number(row.max_abs),
        "" if row.relative is None else numbers.percent(row.relative),
        "" if row.cosine is None else f"{row.cosine:.4f}",
        numbers.count(row.zeros_added) if row.zeros_added else "",
        page.text(numbers.count(row.zeros_revived), "red") if row.zeros_revived else "",
        survivors if sparse else "",
        _odd(row),
    ]


def _odd(row: TensorPair) -> str:
    return numbers.count(row.nonfinite) if row.nonfinite else ""


def _shapes(page: Page, rows: Sequence[TensorPair]) -> None:
    if rows:
        page.heading("Of another shape")
        columns = (
            Column("tensor", align="left", flexible=True),
            Column("A", align="left"),
            Column("B", align="left"),
        )
        page.table(
            columns,
            [(row.name, page.shape(row.shape_a or ()), page.shape(row.shape_b or ())) for row in rows],
        )


def _missing(page: Page, title: str, rows: Sequence[TensorPair]) -> None:
    if rows:
        page.heading(title)
        columns = (
            Column(align="left", flexible=True),
            Column(align="left", style="dim", drop=1),
            Column(align="left", style="dim", drop=2),
        )
        page.table(columns, [_lone(page, row) for row in rows])


def _lone(page: Page, row: TensorPair) -> tuple[str, str, str]:
    close = f"renamed to {' or '.join(row.close)}?" if row.close else ""
    if row.status == "only_b" and row.close:
        close = f"was {' or '.join(row.close)}?"
    return row.name, page.shape(row.shape_a or row.shape_b or ()), close
