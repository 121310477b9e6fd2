"""A recipe's runs on a terminal: the last run's summary, or a table of a sweep."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nnopt_cli.report import console as summary
from nnopt_cli.report import numbers
from nnopt_cli.report.page import Page
from nnopt_cli.report.table import Column

if TYPE_CHECKING:
    from rich.console import Console

    from nnopt_cli.report.recipe_runs import RecipeRun, RecipeRuns


def render(record: RecipeRuns, console: Console, verbose: int = 0) -> None:
    """Show `record` on `console`: one run in full, several as a table."""
    page = Page(console)
    if len(record.runs) > 1:
        _sweep(page, record)
    elif (only := record.runs[0]).record is not None:
        summary.render(only.record, console, verbose)
        if verbose >= 0:
            _steps(page, only)
    if record.verdict:
        page.gap()
        page.prose(record.verdict, "bold")
    if verbose >= 0:
        page.notes(record.notes)


def _steps(page: Page, run: RecipeRun) -> None:
    if len(run.steps) < 2:
        return
    page.heading("Steps")
    columns = (
        Column(align="left"),
        Column("took"),
        Column(align="left", style="dim"),
        Column(align="left", style="dim", flexible=True, cut="end"),
    )
    rows = [
        (
            step.step,
            numbers.seconds(step.seconds),
            "resumed" if step.resumed else "",
            ", ".join(step.settings),
        )
        for step in run.steps
    ]
    page.table(columns, rows)


def _sweep(page: Page, record: RecipeRuns) -> None:
    names = list(dict.fromkeys(name for run in record.runs for name in run.variables))
    varied = [n for n in names if len({repr(run.variables.get(n)) for run in record.runs}) > 1]
    headings = list(dict.fromkeys(name for run in record.runs for name in run.figures))
    page.line(
        page.text("run", "bold"), " ", page.text(record.recipe, "bold cyan"), f"  {len(record.runs)} runs"
    )
    page.gap()
    columns = (
        *(Column(name, align="left", style="bold") for name in varied),
        *(Column(name, drop=2 if name in ("parameters", "bytes") else 0) for name in headings),
        Column("output", align="left", flexible=True, drop=1),
    )
    rows: list[tuple[Any, ...]] = []
    if record.dense:
        shown = [figure(name, record.dense.get(name)) for name in headings]
        rows.append((*("before" if n == 0 else "" for n in range(len(varied))), *shown, ""))
    for run in record.runs:
        values = [said(run.variables.get(name)) for name in varied]
        shown = [figure(name, run.figures.get(name)) for name in headings]
        last = f"failed: {run.error}" if run.error else (run.record.output or "") if run.record else ""
        rows.append((*values, *shown, last))
    page.table(columns, rows)


def figure(name: str, value: float | int | None) -> str:
    """A figure of a sweep's table as one reads it."""
    if value is None:
        return ""
    if name == "bytes":
        return numbers.size(int(value))
    if name == "latency":
        return numbers.duration(value)
    return numbers.count(value) if isinstance(value, int) else f"{value:.4f}"


def said(value: object) -> str:
    """A variable's value as one reads it."""
    if isinstance(value, dict):
        return ",".join(f"{key}={said(each)}" if key != "name" else str(each) for key, each in value.items())
    if isinstance(value, list):
        return ", ".join(map(said, value))
    return "" if value is None else str(value)
