"""A schedule that goes by the validation figure."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from nnopt_cli import LearningRateSchedule, option


class ReduceOnPlateau(LearningRateSchedule):
    """Falls by a factor whenever the validation figure has not improved for a while.

    times gamma after more than `patience` epochs in a row that are not better than the best by `threshold`

    `ReduceLROnPlateau` of PyTorch with its relative threshold, which is right for negative figures too.
    """

    on_metric: ClassVar[bool] = True

    gamma: float = option(0.1, help="Factor of a fall.", gt=0, lt=1)
    patience: int = option(2, help="Epochs without improvement that are borne.", ge=0)
    threshold: float = option(1e-4, help="Relative improvement that counts.", ge=0)
    cooldown: int = option(0, help="Epochs after a fall that do not count.", ge=0)
    least: float = option(0.0, help="The factor never falls below this.", ge=0, lt=1)

    def factor(self, step: int, total: int, steps_per_epoch: int) -> float:
        """1: the figure alone counts."""
        return 1.0

    def update(self, state: dict[str, Any], figure: float, larger_is_better: bool) -> float:
        """See `LearningRateSchedule`. A figure that is NaN is no improvement."""
        if self._better(figure, state.get("best"), larger_is_better):
            state["best"], state["bad"] = figure, 0
        else:
            state["bad"] = state.get("bad", 0) + 1
        if state.get("resting", 0) > 0:
            state["resting"] -= 1
            state["bad"] = 0
        if state["bad"] > self.patience:
            state["factor"] = max(state.get("factor", 1.0) * self.gamma, self.least)
            state["resting"], state["bad"] = self.cooldown, 0
        return float(state.get("factor", 1.0))

    def _better(self, figure: float, best: float | None, larger_is_better: bool) -> bool:
        if best is None:
            return not math.isnan(figure)
        margin = self.threshold * abs(best)
        return figure > best + margin if larger_is_better else figure < best - margin
