"""The learning rate of every step: base, warm-up, schedule, plateau."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nnopt_cli import LearningRateSchedule


@dataclass
class Rates:
    """What the learning rate is at each step.

    Attributes:
        base: the rate that all else multiplies.
        schedule: says by what.
        total: optimizer steps of the whole training.
        per_epoch: optimizer steps of an epoch.
        warmup: first steps, in which the rate rises in a line from base / warmup (Goyal et al. 2017).
        plateau: what a schedule that goes by the validation figure remembers; plain data.
        factor: what that schedule multiplies by now.
    """

    base: float
    schedule: LearningRateSchedule
    total: int
    per_epoch: int
    warmup: int = 0
    plateau: dict[str, Any] = field(default_factory=dict)
    factor: float = 1.0

    def at(self, step: int) -> float:
        """The rate of step number `step`, from 0."""
        if step < self.warmup:
            return self.base * self.factor * (step + 1) / self.warmup
        rest = self.schedule.factor(step - self.warmup, self.total - self.warmup, self.per_epoch)
        return self.base * self.factor * rest

    def seen(self, figure: float, larger_is_better: bool) -> None:
        """Tell the validation figure of an epoch."""
        if self.schedule.on_metric:
            self.factor = self.schedule.update(self.plateau, figure, larger_is_better)
