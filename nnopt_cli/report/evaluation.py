"""How good models are, side by side, as data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nnopt_cli.report.build import disk_bytes, is_parameter
from nnopt_cli.report.record import Row
from nnopt_cli.report.text import encodable

if TYPE_CHECKING:
    from nnopt_cli.data import Batches, Evaluation, Evaluations, Task
    from nnopt_cli.model.model import Model


class Score(Row):
    """What one model scored. A figure that is not finite is None."""

    path: str
    format: str
    rung: str
    parameters: int  # elements of floating tensors, without running statistics, tied ones once
    bytes: int  # on disk, all files
    loss: float | None
    metrics: dict[str, float | None]
    per_class: dict[str, list[float | None]]
    matrices: dict[str, list[list[float | None]]]  # the confusion matrix: a row for each true class
    samples: int
    seconds: float  # in the model itself, without reading data
    throughput: float  # samples per second in the model, without the first batch


class Missed(Row):
    """An image that could not be read."""

    where: str
    why: str


class Evaluated(Row):
    """Several models on the same data."""

    data: str
    task: str
    classes: int  # classes, labels or values
    names: list[str]  # of the classes, where the data have them
    counts: list[int]  # samples of every class, where that is known
    settings: list[str]
    samples: int
    loss: str
    gate: str  # the metric that decides
    larger_is_better: dict[str, bool]
    models: list[Score]
    disagreement: list[list[float]]  # share of predictions that differ (values: root mean square of b - a)
    wins: list[list[int]]  # samples that the row's model gets right and the column's wrong
    unreadable: list[Missed]
    notes: list[str]
    seconds: float  # wall time of the whole command
    device: str
    version: str


def score_of(model: Model, found: Evaluation) -> Score:
    """The figures of one model."""
    return Score(
        path=encodable(str(model.path)),
        format=model.container.format,
        rung=model.rung,
        parameters=sum(w.numel for name, w in model.unique().items() if is_parameter(name, w)),
        bytes=disk_bytes(model.container.files),
        loss=_finite(found.loss),
        metrics=_finite(found.metrics),
        per_class=_finite(found.per_class),
        matrices=_finite(found.matrices),
        samples=found.samples,
        seconds=found.seconds,
        throughput=found.throughput,
    )


def evaluated(
    models: Sequence[Model],
    found: Evaluations,
    batches: Batches,
    task: Task,
    *,
    settings: list[str],
    loss: str,
    gate: str,
    larger_is_better: Mapping[str, bool],
    notes: Sequence[str],
    seconds: float,
    device: str,
) -> Evaluated:
    """The record of an evaluation."""
    from nnopt_cli import __version__

    skipped = batches.skipped
    counted = [*notes, skipped.note(batches.size)] if skipped.found else list(notes)
    for model, each in zip(models, found.models, strict=True):
        if each.loss is not None and not math.isfinite(each.loss):
            counted.append(
                f"{model.path}: the loss is not finite: inputs, targets or weights hold NaN or infinity."
            )
    return Evaluated(
        data=encodable(batches.source.origin),
        task=task.kind,
        classes=task.classes,
        names=list(task.names),
        counts=list(task.counts),
        settings=settings,
        samples=found.models[0].samples,
        loss=loss,
        gate=gate,
        larger_is_better=dict(larger_is_better),
        models=[score_of(model, each) for model, each in zip(models, found.models, strict=True)],
        disagreement=found.disagreement,
        wins=found.wins,
        unreadable=[Missed(where=encodable(where), why=why) for where, why in skipped.found.items()],
        notes=list(dict.fromkeys(counted)),
        seconds=seconds,
        device=device,
        version=__version__,
    )


def _finite(value: Any) -> Any:
    """The same with None for numbers that JSON cannot hold."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return value if value is None or math.isfinite(value) else None
