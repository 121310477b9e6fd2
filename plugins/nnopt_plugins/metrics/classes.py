"""Metrics for one class of several. Tensors: outputs batch x classes x …, targets int64, -100 for none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from nnopt_cli import Metric, option

if TYPE_CHECKING:
    from nnopt_cli.data import Task

_IGNORED = -100


class ClassMetric(Metric, kind="metric"):
    """A metric for classification."""

    tasks: ClassVar[tuple[str, ...]] = ("classification",)


class Accuracy(ClassMetric):
    """Share of samples whose most likely class is the true one."""

    default_for: ClassVar[tuple[str, ...]] = ("classification",)

    def build(self, task: Task) -> Any:
        """See `Metric`."""
        return _stat("MulticlassAccuracy", task, average="micro")


class Top5(ClassMetric):
    """Share of samples whose true class is among the five most likely."""

    name: ClassVar[str] = "top-5"

    def fits(self, task: Task) -> bool:
        """Of five classes or fewer it is always 1."""
        return super().fits(task) and task.classes > 5

    def build(self, task: Task) -> Any:
        """See `Metric`."""
        return _stat("MulticlassAccuracy", task, average="micro", top_k=5)


class F1(ClassMetric):
    """Harmonic mean of precision and recall of every class; their mean over the classes."""

    def build(self, task: Task) -> Any:
        """See `Metric`."""
        return _stat("MulticlassF1Score", task, average="macro")


class NLL(ClassMetric):
    """Negative log likelihood: the mean of -log of the probability given to the true class."""

    larger_is_better: ClassVar[bool] = False

    def build(self, task: Task) -> Any:
        """See `Metric`."""
        return _Likelihood()


class ECE(ClassMetric):
    """Expected calibration error: how far confidence is from accuracy (Guo et al. 2017, arXiv:1706.04599).

    Samples are put into bins by the probability of their most likely class; the mean of
    |accuracy - confidence| over the bins, weighted by their samples.
    """

    larger_is_better: ClassVar[bool] = False

    bins: int = option(15, help="Number of bins.", ge=2)

    def build(self, task: Task) -> Any:
        """See `Metric`."""
        from torchmetrics.classification import MulticlassCalibrationError

        return _Softened(
            MulticlassCalibrationError(
                task.classes, n_bins=self.bins, norm="l1", ignore_index=_IGNORED, validate_args=False
            )
        )


class Precision(ClassMetric):
    """Of the samples said to be of a class, the share that is."""

    detail: ClassVar[bool] = True

    def build(self, task: Task) -> Any:
        """See `Metric`."""
        return _stat("MulticlassPrecision", task, average="none")


class Recall(ClassMetric):
    """Of the samples of a class, the share that is said to be (its accuracy)."""

    detail: ClassVar[bool] = True

    def build(self, task: Task) -> Any:
        """See `Metric`."""
        return _stat("MulticlassRecall", task, average="none")


class ClassF1(ClassMetric):
    """Harmonic mean of precision and recall, class by class."""

    name: ClassVar[str] = "class-f1"
    detail: ClassVar[bool] = True

    def build(self, task: Task) -> Any:
        """See `Metric`."""
        return _stat("MulticlassF1Score", task, average="none")


class Confusion(ClassMetric):
    """How many samples of each class (row) are said to be of which (column)."""

    detail: ClassVar[bool] = True

    def build(self, task: Task) -> Any:
        """See `Metric`."""
        return _stat("MulticlassConfusionMatrix", task)


def _stat(name: str, task: Task, **options: Any) -> Any:
    from torchmetrics import classification

    made = getattr(classification, name)
    return made(task.classes, ignore_index=_IGNORED, validate_args=False, **options)


class _Softened:
    """A metric of probabilities, told logits: torchmetrics takes logits between 0 and 1 for probabilities."""

    def __init__(self, metric: Any) -> None:
        self._metric = metric

    def to(self, device: Any) -> _Softened:
        return _Softened(self._metric.to(device))

    def update(self, outputs: Any, target: Any) -> None:
        self._metric.update(outputs.softmax(1), target)

    def compute(self) -> Any:
        return self._metric.compute()


class _Likelihood:
    """Sum of -log p of the true class, over the samples that have one; in float64."""

    def __init__(self) -> None:
        self._total: Any = 0.0
        self._count: Any = 0

    def update(self, outputs: Any, target: Any) -> None:
        from torch.nn.functional import cross_entropy

        total = cross_entropy(outputs, target, reduction="sum", ignore_index=_IGNORED)
        self._total = self._total + total.double()
        self._count = self._count + (target != _IGNORED).sum()

    def compute(self) -> Any:
        return self._total / self._count
