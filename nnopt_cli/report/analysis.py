"""How much a metric depends on each group of channels: as data, and as bars on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnopt_cli.report import numbers
from nnopt_cli.report.page import Page
from nnopt_cli.report.record import Row
from nnopt_cli.report.table import Column

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text


class GroupSensitivity(Row):
    """One group of coupled channels or heads."""

    layer: str  # the first parameter whose rows they are
    units: int
    heads: bool
    metric: list[float]  # with each of the ratios of its units removed, all else dense
    loses: float  # the most that the metric gets worse by


class Analysis(Row):
    """A model."""

    model: str
    metric: str
    larger_is_better: bool
    dense: float  # the metric of the model as it is
    samples: int
    criterion: str
    ratios: list[float]
    groups: list[GroupSensitivity]
    notes: list[str]
    seconds: float
    version: str


def render(record: Analysis, console: Console) -> None:
    """Show `record` on `console`, in the order of the graph."""
    page = Page(console)
    page.line(page.text("analyze", "bold"), " ", page.text(record.model, "bold cyan"))
    said = f"{record.metric} {record.dense:.4f} as it is"
    page.prose(
        page.joined((said, numbers.plural(record.samples, "sample"), f"criterion {record.criterion}")), "dim"
    )
    page.heading(f"{record.metric.capitalize()} when one group alone is pruned")
    most = max((group.loses for group in record.groups), default=0.0)
    columns = (
        Column("rows of", align="left", flexible=True),
        Column("units", drop=2),
        *(Column(f"{ratio:.0%} gone") for ratio in record.ratios),
        Column("loses", align="left", drop=1),
    )
    rows: list[tuple[str | Text, ...]] = [
        (
            group.layer,
            numbers.count(group.units),
            *(f"{value:.4f}" for value in group.metric),
            page.bar(max(0.0, group.loses) / most if most > 0 else 0.0),
        )
        for group in record.groups
    ]
    page.table(columns, rows)
    page.notes(record.notes)
