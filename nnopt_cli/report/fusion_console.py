"""The summary of `nnopt ensemble` on a terminal."""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING

from nnopt_cli.report import numbers
from nnopt_cli.report.evaluation_console import LETTERS, figures, pairs
from nnopt_cli.report.page import Page
from nnopt_cli.report.table import Column

if TYPE_CHECKING:
    from rich.console import Console

    from nnopt_cli.report.fusion import Fused

EXTREMES = 4  # layers least alike and most alike that are shown


def render(record: Fused, console: Console, verbose: int = 0) -> None:
    """Show `record` on `console`; `verbose` -1 shows only the path written, 1 every layer."""
    page = Page(console)
    if verbose < 0:
        if record.output is not None:
            page.line(record.output)
        return
    members = [source for source in record.inputs if not source.base]
    names = " + ".join(PurePath(source.path).name or source.path for source in members)
    page.line(page.text("ensemble", "bold"), " ", page.text(names, "bold cyan"))
    method = record.method if record.method == record.asked else f"{record.asked}: {record.method}"
    page.prose(page.joined((f"method {method}", *record.settings)), "dim")
    if record.evidence:
        page.gap()
        for sentence in record.evidence:
            page.prose(sentence)
    _likeness(page, record, everything=verbose > 0)
    _sizes(page, record)
    if record.evaluated is not None:
        page.heading("Measured", f"on {numbers.plural(record.evaluated.samples, 'sample')}")
        heads = [*_letters(len(members)), "fused"]
        figures(page, record.evaluated, heads)
        pairs(page, record.evaluated, heads)
    page.notes(record.notes)
    page.gap()
    page.spent(record.seconds, record.peak_bytes, record.device)
    page.written(record.output, dry_run=record.dry_run)


def _letters(count: int) -> list[str]:
    return [LETTERS[i] if i < len(LETTERS) else str(i + 1) for i in range(count)]


def _likeness(page: Page, record: Fused, *, everything: bool) -> None:
    """The layers that are least alike, and those that are most."""
    rows = sorted(record.likeness, key=lambda row: row.cosine)
    if not rows:
        return
    few = everything or len(rows) <= 2 * EXTREMES
    page.heading("Likeness", "cosine between the members' weights, by layer" + ("" if few else ", extremes"))
    shown = rows if few else [*rows[:EXTREMES], *rows[-EXTREMES:]]
    lines = [(row.layer, f"{row.cosine:+.3f}", page.bar(max(0.0, row.cosine))) for row in shown]
    page.table((Column("layer", align="left", flexible=True), Column("cosine"), Column(align="left")), lines)


def _sizes(page: Page, record: Fused) -> None:
    page.heading("Models")
    members = [source for source in record.inputs if not source.base]
    letters = iter(_letters(len(members)))
    rows = [
        (
            "base" if source.base else next(letters),
            source.path,
            numbers.count(source.parameters),
            numbers.size(source.bytes),
        )
        for source in record.inputs
    ]
    rows.append(("fused", record.output or "", numbers.count(record.parameters), numbers.size(record.bytes)))
    columns = (
        Column(align="left", style="bold"),
        Column(align="left", flexible=True),
        Column("parameters"),
        Column("bytes"),
    )
    page.table(columns, rows)
