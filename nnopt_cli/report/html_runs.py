"""A recipe's runs as a page: one run in full, or a sweep with its accuracy against its cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from nnopt_cli.report import numbers
from nnopt_cli.report.html_charts import Series, chart, short
from nnopt_cli.report.html_page import Sheet, notes, section, table, text
from nnopt_cli.report.html_pass import changed
from nnopt_cli.report.recipe_runs import RecipeRun, RecipeRuns
from nnopt_cli.report.recipe_runs_console import figure, said

_SPARE = ("parameters", "bytes", "output")  # columns that a narrow window leaves out
Result = Callable[[str, Mapping[str, Any]], Sheet]


def runs(record: RecipeRuns, result: Result) -> Sheet:
    """The page of `nnopt run`; `result` makes the contents of what a command in the recipe gave."""
    if len(record.runs) == 1:
        return _single(record, record.runs[0], result)
    varied = varied_in(record)
    parts = [
        _trade(record, varied),
        section("Runs", _table(record, varied)),
        *(_more(run, varied, result) for run in record.runs),
        notes(record.notes),
    ]
    return Sheet("run", record.recipe, [f"{len(record.runs)} runs", numbers.seconds(record.seconds)], parts)


def varied_in(record: RecipeRuns) -> list[str]:
    """The variables that differ between runs."""
    names = dict.fromkeys(name for run in record.runs for name in run.variables)
    return [n for n in names if len({repr(run.variables.get(n)) for run in record.runs}) > 1]


def _single(record: RecipeRuns, run: RecipeRun, result: Result) -> Sheet:
    inner = changed(run.record) if run.record else Sheet("", "", (), ())
    verdict = f"<p><b>{text(record.verdict)}</b></p>" if record.verdict else ""
    chips = [f"{name} {said(value)}" for name, value in run.variables.items()]
    steps = [
        (
            text(step.step),
            text(", ".join(step.settings)),
            numbers.seconds(step.seconds),
            "resumed" * step.resumed,
        )
        for step in run.steps
    ]
    parts = [
        verdict,
        *inner.parts,
        section("Steps", table(("step", "with", "took", ""), steps, "llrl")),
        notes(record.notes),
        *_results(run, result),
    ]
    return Sheet("run", record.recipe, [*chips, *inner.chips], parts)


def _trade(record: RecipeRuns, varied: list[str]) -> str:
    """Accuracy against cost: a point for each run, and one for the model before."""
    if record.metric is None or record.cost is None:
        return ""
    metric, cost = record.metric, record.cost
    points: list[tuple[float, float | None]] = []
    labels = []
    for run in record.runs:
        x, y = run.figures.get(cost), run.figures.get(metric)
        if x is not None and y is not None:
            points.append((float(x), float(y)))
            labels.append(", ".join(said(run.variables.get(name)) for name in varied))
    order = sorted(range(len(points)), key=lambda n: points[n][0])
    series = [Series("runs", [points[n] for n in order], [labels[n] for n in order], line=len(varied) == 1)]
    x, y = record.dense.get(cost), record.dense.get(metric)
    if x is not None and y is not None:
        series.append(Series("before", [(float(x), float(y))], ["before"], line=False))
    drawn = chart(series, cost, metric, x_text=short)
    return section(f"{metric.capitalize()} against {cost}", drawn)


def _table(record: RecipeRuns, varied: list[str]) -> str:
    headings = list(dict.fromkeys(name for run in record.runs for name in run.figures))
    rows = []
    if record.dense:
        shown = [text(figure(name, record.dense.get(name))) for name in headings]
        rows.append(("before", *[""] * (len(varied) - 1), *shown, "")[-(len(varied) + len(headings) + 1) :])
    for run in record.runs:
        values = [text(said(run.variables.get(name))) for name in varied]
        shown = [text(figure(name, run.figures.get(name))) for name in headings]
        last = f"failed: {run.error}" if run.error else (run.record.output or "") if run.record else ""
        rows.append((*values, *shown, text(last)))
    kinds = "l" * len(varied) + "r" * len(headings) + "n"
    columns = (*varied, *headings, "output")
    spare = [n for n, name in enumerate(columns) if n >= len(varied) and name in _SPARE]
    return table(columns, rows, kinds, hide=spare)


def _more(run: RecipeRun, varied: list[str], result: Result) -> str:
    """One run of a sweep, folded."""
    if run.error:
        return ""
    title = ", ".join(f"{name} {said(run.variables.get(name))}" for name in varied)
    inner = [*(changed(run.record).parts if run.record else ()), *_results(run, result)]
    return f"<details><summary>{text(title)}</summary>{''.join(inner)}</details>"


def _results(run: RecipeRun, result: Result) -> list[str]:
    """What each command of a run gave, under its own heading."""
    shown = [result(step.step, step.result) for step in run.steps if step.result is not None]
    return [section(f"{each.command.capitalize()}: {each.what}".rstrip(": "), *each.parts) for each in shown]
