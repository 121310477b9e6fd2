"""Metrics for values. Tensors: outputs and targets of one shape, batch first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from nnopt_cli import Metric

if TYPE_CHECKING:
    from nnopt_cli.data import Task


class ValueMetric(Metric, kind="metric"):
    """A metric for regression."""

    tasks: ClassVar[tuple[str, ...]] = ("regression",)


class R2(ValueMetric):
    """Share of the targets' variance that is explained; for several outputs the mean of theirs."""

    name: ClassVar[str] = "r2"
    default_for: ClassVar[tuple[str, ...]] = ("regression",)

    def build(self, task: Task) -> Any:
        """See `Metric`."""
        from torchmetrics.regression import R2Score

        return _Rows(R2Score())


class MSE(ValueMetric):
    """Mean squared error."""

    name: ClassVar[str] = "mse"
    larger_is_better: ClassVar[bool] = False

    def build(self, task: Task) -> Any:
        """See `Metric`."""
        from torchmetrics.regression import MeanSquaredError

        return _Rows(MeanSquaredError())


class MAE(ValueMetric):
    """Mean absolute error."""

    name: ClassVar[str] = "mae"
    larger_is_better: ClassVar[bool] = False

    def build(self, task: Task) -> Any:
        """See `Metric`."""
        from torchmetrics.regression import MeanAbsoluteError

        return _Rows(MeanAbsoluteError())


class _Rows:
    """A metric told batch x outputs in float64, whatever the dimensions."""

    def __init__(self, metric: Any) -> None:
        self._metric = metric.set_dtype(_double())

    def to(self, device: Any) -> _Rows:
        self._metric = self._metric.to(device)
        return self

    def update(self, outputs: Any, target: Any) -> None:
        self._metric.update(_two(outputs), _two(target))

    def compute(self) -> Any:
        return self._metric.compute()


def _double() -> Any:
    import torch

    return torch.float64


def _two(values: Any) -> Any:
    values = values.double().flatten(1)
    return values.squeeze(1) if values.shape[1] == 1 else values
