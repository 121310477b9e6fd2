"""`Data`: everything that a command knows of its data, opened, checked and ready."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nnopt_cli.data.evaluation import Evaluation, evaluate

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.export import ExportedProgram

    from nnopt_cli.data.batching import Batches
    from nnopt_cli.data.evaluation import Measure
    from nnopt_cli.data.task import Task
    from nnopt_cli.run import Run


@dataclass(frozen=True)
class Data:
    """Data that were opened for a model and fit it.

    Attributes:
        train: the rows of `--data` (without those that `--val-split` holds out), shuffled and augmented.
        plain: the same rows in their order, as they are.
        val: the rows of `--val`, or those held out; None without either.
        task: what is to be learnt.
        loss: what is minimised: `loss(outputs, target)`, a mean over the batch.
        gate: the metric that decides (`--metric`).
        metrics: all metrics for the task, `gate` among them.
    """

    train: Batches
    plain: Batches
    val: Batches | None
    task: Task
    loss: Callable[[Tensor, Tensor], Tensor]
    gate: Measure
    metrics: tuple[Measure, ...]

    @property
    def measured(self) -> Batches:
        """What metrics are taken on: the validation rows, else the rows of `--data` as they are."""
        return self.plain if self.val is None else self.val


def score(call: nn.Module | ExportedProgram | Callable[..., Any], data: Data, run: Run) -> float:
    """The metric that decides, on the measured rows; larger is always better (others are negated)."""
    found = measure(call, data, run, (data.gate,))
    value = found.metrics[data.gate.name]
    return value if data.gate.larger_is_better else -value


def measure(
    call: nn.Module | ExportedProgram | Callable[..., Any],
    data: Data,
    run: Run,
    metrics: tuple[Measure, ...] | None = None,
) -> Evaluation:
    """Loss and metrics (all of the task by default) on the measured rows."""
    chosen = data.metrics if metrics is None else metrics
    from nnopt_cli.data.place import as_call

    return evaluate(
        as_call(call, run.device),
        data.measured,
        task=data.task,
        loss=data.loss,
        metrics=chosen,
        device=run.device,
    )
