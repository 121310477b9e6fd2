"""Which data choose and which report: nothing is reported on data that chose it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from nnopt_cli import UsageError

if TYPE_CHECKING:
    from torch import nn

    from nnopt_cli.data import Batches, Data, Evaluation

SHARE = 5  # one row in so many chooses, where validation rows must do both
_LEAST = 10  # validation rows below which they are not split
_SAMPLE = 5000  # training rows at most on which the gap is measured


@dataclass(frozen=True)
class Sides:
    """Data to measure on.

    Attributes:
        watched: seen after every epoch, and what chooses; None without validation data.
        reported: what the figures before and after are taken on.
        sample: training rows as they are, for the gap.
        chooses: whether something is chosen on `watched`.
        said: what `reported` is, for the summary.
    """

    watched: Batches | None
    reported: Batches
    sample: Batches
    chooses: bool
    said: str


def sides(data: Data, test: Batches | None, chooses: bool, forced: bool, seed: int) -> Sides:
    """Split what there is.

    Args:
        data: opened for training.
        test: rows that were set apart for reporting.
        chooses: whether an epoch is to be chosen, or training stopped, by the validation data.
        forced: whether that was asked for, and not only the default.
        seed: of the split.

    Raises UsageError: something is to be chosen, and there are no data for it.
    """
    sample = _drawn(data.plain, _SAMPLE, seed)[0]
    if data.val is None:
        if forced:
            raise UsageError(
                "nothing can be chosen without validation data", "Add --val DATA or --val-split 0.1."
            )
        return Sides(None, test or sample, sample, False, "test rows" if test else "training rows")
    if test is not None:
        return Sides(data.val, test, sample, chooses, "test rows")
    if not chooses:
        return Sides(data.val, data.val, sample, False, "validation rows")
    rows = data.val.size or 0
    if rows < _LEAST:
        if forced:
            raise UsageError(
                f"{rows} validation rows cannot both choose and report",
                "Give --test DATA for reporting, more rows, or --keep last.",
            )
        return Sides(data.val, data.val, sample, False, "validation rows")
    few, rest = _drawn(data.val, max(1, rows // SHARE), seed)
    return Sides(few, rest, sample, True, "validation rows that chose nothing")


def _drawn(batches: Batches, count: int, seed: int) -> tuple[Batches, Batches]:
    """So many rows at random, in their order, and the others."""
    import numpy as np

    if batches.rows is None or len(batches.rows) <= count:
        return batches, batches
    order = np.random.default_rng([seed, 3]).permutation(len(batches.rows))
    few, rest = np.sort(order[:count]), np.sort(order[count:])
    return (
        replace(batches, rows=batches.rows[few], pixels={}),
        replace(batches, rows=batches.rows[rest], pixels={}),
    )


def figures(module: nn.Module, batches: Batches, data: Data, device: str) -> Evaluation:
    """Loss and deciding metric of a module, in evaluation mode while it lasts."""
    from nnopt_cli.data import evaluate

    was = module.training
    module.eval()
    try:
        return evaluate(module, batches, task=data.task, loss=data.loss, metrics=[data.gate], device=device)
    finally:
        module.train(was)


@dataclass
class Best:
    """The best epoch so far.

    Attributes:
        larger: in which direction the figure improves.
        figure: of the best epoch; None before the first.
        epoch: its number, 0 for before training.
        tensors: weights and statistics at its end, by name.
    """

    larger: bool
    figure: float | None = None
    epoch: int = 0
    tensors: dict[str, Any] | None = None

    def offer(self, figure: float, epoch: int, tensors: Callable[[], dict[str, Any]] | None) -> bool:
        """Take an epoch that is better than all before; equal ones and NaN are not."""
        if figure != figure:
            return False
        if self.figure is not None and (figure <= self.figure if self.larger else figure >= self.figure):
            return False
        self.figure, self.epoch = figure, epoch
        self.tensors = tensors() if tensors is not None else None
        return True
