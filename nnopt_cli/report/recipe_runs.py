"""What a recipe came to, as data: one run, or one for each combination of its variables."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from nnopt_cli.report.record import Record, Row

Figure = float | int | None
BEFORE = ", before "  # in the name of a metric that was measured before a later step


class StepRow(Row):
    """One step of a run."""

    step: str  # the pass or command
    settings: list[str]
    seconds: float
    resumed: bool = False  # taken from the work folder
    result: dict[str, Any] | None = None  # the record of a command


class RecipeRun(Row):
    """One run."""

    variables: dict[str, Any]
    figures: dict[str, Figure]  # what a sweep's table shows, by heading
    steps: list[StepRow]
    record: Record | None  # of all passes together; None where the run failed
    error: str | None = None


class RecipeRuns(Row):
    """A recipe."""

    recipe: str
    runs: list[RecipeRun]
    metric: str | None = None  # the figure that is accuracy, among those of the runs
    cost: str | None = None  # the figure that is cost
    dense: dict[str, Figure] = Field(default_factory=dict)  # of the model before
    identical: bool | None = None  # after repeating a record: whether all tensors have the same bits
    verdict: str = ""
    notes: list[str] = Field(default_factory=list)
    seconds: float
    version: str


def figures_of(
    record: Record, steps: list[StepRow]
) -> tuple[dict[str, Figure], dict[str, Figure], str | None]:
    """The figures of one run, those of its input, and which of them is the metric."""
    before, after, shrunk = record.before, record.after, record.shrunk
    found: dict[str, Figure] = {"parameters": after.parameters, "non-zeros": after.nonzeros}
    dense: dict[str, Figure] = {"parameters": before.parameters, "non-zeros": before.nonzeros}
    metric, judged_on = None, _data_of(record)
    if shrunk is not None:
        found["MACs"], dense["MACs"] = shrunk.macs[1], shrunk.macs[0]
    found["bytes"], dense["bytes"] = after.bytes, before.bytes
    if shrunk is not None and shrunk.metric is not None:
        metric = shrunk.metric_name.partition(BEFORE)[0]
        dense[metric], found[metric] = shrunk.metric
    if record.training is not None:
        metric = record.training.metric_name
        found[metric] = record.training.after
        if record.training.dense is not None:
            dense[metric] = record.training.dense
        else:
            dense.pop(metric, None)  # measured on other data
    for step in steps:
        result = step.result or {}
        if step.step == "evaluate" and result.get("models"):
            metric = str(result["gate"])
            found[metric] = result["models"][0]["metrics"].get(metric)
            if f"data {judged_on}" in step.settings and shrunk is not None and shrunk.metric is not None:
                dense[metric] = shrunk.metric[0]
            else:
                dense.pop(metric, None)  # measured on other data
        if step.step == "bench" and result.get("timings"):
            found["latency"] = result["timings"][0]["median"]
    return found, dense, metric


def _data_of(record: Record) -> str | None:
    """The data on which the first pass that measures a metric did so, as they were written."""
    steps = record.options.get("steps", [])
    found = (step.get("data") for step in steps if isinstance(step, dict) and step.get("granularity"))
    return next((str(data) for data in found if data is not None), None)


def cost_in(runs: list[RecipeRun]) -> str | None:
    """The figure that is cost: what all runs have, and what differs between them by more than a percent."""
    done = [run.figures for run in runs if run.record is not None]
    for name in ("MACs", "non-zeros", "bytes", "parameters"):
        values = [value for figures in done if isinstance(value := figures.get(name), int)]
        known = bool(values) and len(values) == len(done)
        if known and (len(values) == 1 or max(values) > 1.01 * min(values)):
            return name
    return None
