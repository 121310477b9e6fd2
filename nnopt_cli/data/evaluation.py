"""The evaluation loop: one pass over the data, any number of models."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from nnopt_cli.data.expected import Expected
from nnopt_cli.data.outputs import answer, classes_last, predict
from nnopt_cli.data.task import IGNORED
from nnopt_cli.errors import NnoptError
from nnopt_cli.model.arch import described

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from nnopt_cli.data.batching import Batch, Batches
    from nnopt_cli.data.task import Task

Loss = Callable[["Tensor", "Tensor"], "Tensor"]


class Tally(Protocol):
    """What a metric counts with; every `torchmetrics.Metric` is one."""

    def update(self, outputs: Tensor, target: Tensor) -> None:
        """See one batch."""

    def compute(self) -> Tensor:
        """The figure: one number, one per class, or a matrix."""


class Measure(Protocol):
    """What is measured; every `Metric` component is one.

    Class attributes:
        name: how it is called.
        larger_is_better: in which direction it improves.
        detail: whether it is a figure of every class, taken only where these are asked for.
    """

    name: ClassVar[str]
    larger_is_better: ClassVar[bool]
    detail: ClassVar[bool]

    def build(self, task: Task) -> Tally:
        """A new, empty tally."""


@dataclass(frozen=True)
class Evaluation:
    """What one model scored.

    Attributes:
        loss: mean over the samples; None where no loss was asked for.
        metrics: figures by name.
        per_class: figures of every class by name.
        matrices: such as the confusion matrix (rows: the true class), by name.
        samples: how many were seen.
        seconds: what the model itself took, without reading data; the first batch is left out of
            `throughput`.
        throughput: samples per second.
    """

    loss: float | None
    metrics: dict[str, float]
    per_class: dict[str, list[float]] = field(default_factory=dict)
    matrices: dict[str, list[list[float]]] = field(default_factory=dict)
    samples: int = 0
    seconds: float = 0.0
    throughput: float = 0.0


@dataclass(frozen=True)
class Evaluations:
    """What several models scored on the same data.

    Attributes:
        models: one for each, in order.
        disagreement: for every pair, the share of predictions that differ (classes, labels), or the root
            of the mean squared difference (values).
        wins: for classes, how many samples the model of the row gets right and that of the column wrong.
    """

    models: list[Evaluation]
    disagreement: list[list[float]]
    wins: list[list[int]]


@dataclass(frozen=True)
class Contestant:
    """A model to evaluate.

    Attributes:
        call: the module, in evaluation mode, on the device where it is computed.
        expected: what it takes.
    """

    call: Callable[..., Any]
    expected: Expected = field(default_factory=Expected)


def evaluate(
    call: Callable[..., Any],
    batches: Batches,
    *,
    task: Task,
    loss: Loss | None,
    metrics: Sequence[Measure],
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
) -> Evaluation:
    """What one model scores; see `evaluate_all`."""
    one = Contestant(call, batches.assembly.expected)
    found = evaluate_all([one], batches, task=task, loss=loss, metrics=metrics, device=device, dtype=dtype)
    return found.models[0]


def evaluate_all(
    contestants: Sequence[Contestant],
    batches: Batches,
    *,
    task: Task,
    loss: Loss | None,
    metrics: Sequence[Measure],
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    watch: Callable[[Batch], None] | None = None,
) -> Evaluations:
    """Run every model once over `batches`.

    Args:
        contestants: the models.
        batches: the data.
        task: what outputs and targets mean.
        loss: gives the mean loss of a batch from outputs and targets.
        metrics: what else is measured.
        device: where it is computed.
        dtype: computed in this type, by autocast; None as the model is.
        watch: called after every batch.

    Raises NnoptError: the data hold no sample, or an output or the loss is of the wrong shape.
    """
    import torch

    sides = [_Side(each, task, loss, metrics, torch.device(device), dtype) for each in contestants]
    apart = _Apart(len(contestants), task)
    with torch.inference_mode():
        for batch in batches.on(device):
            said = [side.see(batch) for side in sides]
            apart.see(said, batch.target)
            if watch is not None:
                watch(batch)
    if not sides or not sides[0].samples:
        why = batches.skipped.note(batches.size) or "It has no rows."
        raise NnoptError(f"{batches.source.origin}: there is no data", why)
    return Evaluations([side.result() for side in sides], apart.disagreement(), apart.wins())


class _Side:
    """One model's running figures."""

    def __init__(
        self,
        contestant: Contestant,
        task: Task,
        loss: Loss | None,
        metrics: Sequence[Measure],
        device: torch.device,
        dtype: torch.dtype | None,
    ) -> None:
        self.call, self.expected = contestant.call, contestant.expected
        self.task, self.loss, self.device, self.dtype = task, loss, device, dtype
        self.tallies = {metric.name: _on(metric.build(task), device) for metric in metrics}
        self.samples = self.later = 0
        self.seconds = self.warm = 0.0
        self.total: Any = 0.0

    def see(self, batch: Batch) -> Tensor:
        import torch

        batch = self.expected.fed(batch)
        start = self._now()
        try:
            with torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None):
                outputs = answer(self.call, batch, self.expected.batch)
        except NnoptError:
            raise
        except Exception as error:  # the user's own code, a token out of range, too little memory
            raise NnoptError(
                f"the model fails on samples {self.samples:,} to {self.samples + batch.size - 1:,}: "
                f"{described(error)}",
                "With too little memory, a smaller --batch-size helps.",
            ) from error
        took = self._now() - start
        self.warm += took if self.samples else 0.0
        self.later += batch.size if self.samples else 0
        self.seconds += took
        self.samples += batch.size
        outputs, target = aligned(outputs, batch.target, self.task)
        if self.loss is not None:
            self.total = self.total + self.loss(outputs, target).double() * batch.size
        for tally in self.tallies.values():
            tally.update(outputs, target)
        return predict(outputs, self.task)

    def _now(self) -> float:
        import torch

        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def result(self) -> Evaluation:
        metrics: dict[str, float] = {}
        per_class: dict[str, list[float]] = {}
        matrices: dict[str, list[list[float]]] = {}
        for name, tally in self.tallies.items():
            value = tally.compute()
            if value.dim() == 0:
                metrics[name] = float(value)
            elif value.dim() == 1:
                per_class[name] = [float(each) for each in value]
            else:
                matrices[name] = [[float(each) for each in row] for row in value]
        loss = None if self.loss is None else float(self.total) / self.samples
        measured = (self.later / self.warm) if self.warm else self.samples / max(self.seconds, 1e-9)
        return Evaluation(loss, metrics, per_class, matrices, self.samples, self.seconds, measured)


def aligned(outputs: Tensor, target: Tensor, task: Task) -> tuple[Tensor, Tensor]:
    """Outputs and targets as losses and metrics take them: floating outputs, classes in dimension 1.

    Raises NnoptError where their shapes do not fit.
    """
    import torch

    if outputs.dtype in (torch.float16, torch.bfloat16):
        outputs = outputs.float()
    if task.kind == "classification":
        shares = target.is_floating_point()
        outputs = outputs if shares else classes_last(outputs, target)
        places = (outputs.shape[0], *outputs.shape[2:])
        fits = outputs.dim() >= 2 and (outputs.shape if shares else places) == tuple(target.shape)
    else:
        target = target.to(outputs.dtype)
        if outputs.shape != target.shape and outputs.numel() == target.numel():
            outputs = outputs.reshape(target.shape)
        fits = outputs.shape == target.shape
    if not fits:
        raise NnoptError(
            f"the model's output {list(outputs.shape)} does not fit the targets {list(target.shape)} for "
            f"{task.kind}",
            "--task says what is to be learnt, --y which column is the target.",
        )
    return outputs, target


class _Apart:
    """How far the models' predictions are apart, pair by pair."""

    def __init__(self, count: int, task: Task) -> None:
        self._task = task
        self._far: list[list[Any]] = [[0.0] * count for _ in range(count)]
        self._won: list[list[Any]] = [[0] * count for _ in range(count)]
        self._seen = 0

    def see(self, said: Sequence[Tensor], target: Tensor) -> None:
        """`said`: one prediction for each model, of one shape."""
        if len(said) < 2:
            return
        self._seen += said[0].numel()
        classes = self._task.kind == "classification"
        known = target != IGNORED
        for i, one in enumerate(said):
            for j, other in enumerate(said):
                if classes and i != j:
                    self._won[i][j] += ((one == target) & (other != target) & known).sum()
                if j < i:
                    self._far[i][j] += self._distance(one, other)

    def _distance(self, one: Tensor, other: Tensor) -> Tensor:
        if self._task.kind == "regression":
            return (one.double() - other.double()).square().sum()
        return (one != other).sum()

    def disagreement(self) -> list[list[float]]:
        count = len(self._far)
        out = [[0.0] * count for _ in range(count)]
        for i in range(count):
            for j in range(i):
                mean = float(self._far[i][j]) / max(1, self._seen)
                out[i][j] = out[j][i] = mean**0.5 if self._task.kind == "regression" else mean
        return out

    def wins(self) -> list[list[int]]:
        return [[int(each) for each in row] for row in self._won]


def _on(tally: Any, device: torch.device) -> Tally:
    """Torchmetrics' metrics move; others need not know how."""
    moved: Tally = tally.to(device) if hasattr(tally, "to") else tally
    return moved
