"""Metrics for labels, each of which is there or not. Tensors: logits and 0/1, batch x labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from nnopt_cli import Metric

if TYPE_CHECKING:
    from nnopt_cli.data import Task


class LabelMetric(Metric, kind="metric"):
    """A metric for labels."""

    tasks: ClassVar[tuple[str, ...]] = ("multi-label",)


class LabelF1(LabelMetric):
    """Harmonic mean of precision and recall of every label (from probability 1/2 on); their mean."""

    name: ClassVar[str] = "label-f1"
    default_for: ClassVar[tuple[str, ...]] = ("multi-label",)

    def build(self, task: Task) -> Any:
        """See `Metric`."""
        return _made("MultilabelF1Score", task, average="macro")


class LabelAccuracy(LabelMetric):
    """Share of labels that are right, over all samples and labels."""

    name: ClassVar[str] = "label-accuracy"

    def build(self, task: Task) -> Any:
        """See `Metric`."""
        return _made("MultilabelAccuracy", task, average="micro")


class ExactMatch(LabelMetric):
    """Share of samples all of whose labels are right."""

    name: ClassVar[str] = "exact-match"

    def build(self, task: Task) -> Any:
        """See `Metric`."""
        return _made("MultilabelExactMatch", task)


class AveragePrecision(LabelMetric):
    """Area under precision over recall of every label, their mean (mAP), from 200 thresholds."""

    name: ClassVar[str] = "map"

    def build(self, task: Task) -> Any:
        """See `Metric`."""
        return _made("MultilabelAveragePrecision", task, average="macro", thresholds=200)


class EachLabelF1(LabelMetric):
    """Harmonic mean of precision and recall, label by label."""

    name: ClassVar[str] = "each-label-f1"
    detail: ClassVar[bool] = True

    def build(self, task: Task) -> Any:
        """See `Metric`."""
        return _made("MultilabelF1Score", task, average="none")


class _Flat:
    """A metric of probabilities batch x labels, told logits of any further dimensions."""

    def __init__(self, metric: Any) -> None:
        self._metric = metric

    def to(self, device: Any) -> _Flat:
        return _Flat(self._metric.to(device))

    def update(self, outputs: Any, target: Any) -> None:
        self._metric.update(outputs.sigmoid().flatten(1), target.flatten(1).long())

    def compute(self) -> Any:
        return self._metric.compute()


def _made(name: str, task: Task, **options: Any) -> Any:
    from torchmetrics import classification

    if task.classes < 2:  # torchmetrics calls a single label binary, and counts it otherwise
        name = name.replace("Multilabel", "Binary").replace("BinaryExactMatch", "BinaryAccuracy")
        options.pop("average", None)
        return _Flat(getattr(classification, name)(validate_args=False, **options))
    return _Flat(getattr(classification, name)(task.classes, validate_args=False, **options))
