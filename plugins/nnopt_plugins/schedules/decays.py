"""Schedules that only ever go down. In formulas e is the time in epochs, counted on within an epoch."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from nnopt_cli import LearningRateSchedule, option
from nnopt_plugins.schedules.span import steps


class Constant(LearningRateSchedule):
    """The rate stays as it is.

    1

    Robbins and Monro 1951 show what a constant rate cannot reach.
    """

    def factor(self, step: int, total: int, steps_per_epoch: int) -> float:
        """See `LearningRateSchedule`."""
        return 1.0


class Step(LearningRateSchedule):
    """Falls by a factor at regular times.

    gamma^floor(e / every)

    Step decay of Krizhevsky et al. 2012 (NIPS); `StepLR` of PyTorch.
    """

    every: float = option(0.3, help="Time between two falls: epochs, or below 1 a share of the run.", gt=0)
    gamma: float = option(0.1, help="Factor of a fall.", gt=0, le=1)

    def factor(self, step: int, total: int, steps_per_epoch: int) -> float:
        """See `LearningRateSchedule`."""
        falls = step // steps(self.every, total, steps_per_epoch)
        return float(self.gamma**falls)


class MultiStep(LearningRateSchedule):
    """Falls by a factor at given times.

    gamma^(number of milestones that are reached)

    He et al. 2016, arXiv:1512.03385, section 4.2; `MultiStepLR` of PyTorch.
    """

    milestones: tuple[Annotated[float, Field(gt=0)], ...] = option(
        (0.5, 0.75),
        help="When it falls: after so many epochs, or below 1 after a share of the run.",
        min_length=1,
    )
    gamma: float = option(0.1, help="Factor of a fall.", gt=0, le=1)

    def factor(self, step: int, total: int, steps_per_epoch: int) -> float:
        """See `LearningRateSchedule`."""
        reached = sum(step >= steps(when, total, steps_per_epoch) for when in self.milestones)
        return float(self.gamma**reached)


class Exponential(LearningRateSchedule):
    """Falls by the same factor in every epoch, a little in every step.

    gamma^e

    `ExponentialLR` of PyTorch has the same values at the start of each epoch, and keeps them through it.
    """

    gamma: float = option(0.9, help="Factor of an epoch.", gt=0, le=1)

    def factor(self, step: int, total: int, steps_per_epoch: int) -> float:
        """See `LearningRateSchedule`."""
        return float(self.gamma ** (step / steps_per_epoch))


class TimeBased(LearningRateSchedule):
    """Falls with the inverse of time.

    1 / (1 + decay * e)

    The rate of Robbins and Monro 1951; `InverseTimeDecay` of TensorFlow. PyTorch has none.
    """

    decay: float = option(1.0, help="After 1/decay epochs the rate is half of what it was.", ge=0)

    def factor(self, step: int, total: int, steps_per_epoch: int) -> float:
        """See `LearningRateSchedule`."""
        return 1.0 / (1.0 + self.decay * step / steps_per_epoch)
