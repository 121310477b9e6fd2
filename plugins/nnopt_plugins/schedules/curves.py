"""Schedules that know how long training lasts. In formulas x = step / total, from 0 to just below 1."""

from __future__ import annotations

import math
from typing import Literal

from nnopt_cli import LearningRateSchedule, option
from nnopt_plugins.schedules.span import steps


class Polynomial(LearningRateSchedule):
    """Falls to the end's rate along a power of the time that is left; power 1 is a straight line.

    end + (1 - end) * (1 - x)^power

    Chen et al. 2018, arXiv:1606.00915, section 4.1; `PolynomialLR` of PyTorch.
    """

    power: float = option(1.0, help="Exponent.", gt=0)
    end: float = option(0.0, help="Factor at the end.", ge=0, le=1)

    def factor(self, step: int, total: int, steps_per_epoch: int) -> float:
        """See `LearningRateSchedule`."""
        left = max(0.0, 1.0 - step / total)
        return float(self.end + (1.0 - self.end) * left**self.power)


class Cosine(LearningRateSchedule):
    """Falls to the end's rate along half a cosine: slowly, fast, slowly.

    end + (1 - end) * (1 + cos(pi x)) / 2

    Loshchilov and Hutter 2017, arXiv:1608.03983, eq. 5; `CosineAnnealingLR` of PyTorch.
    """

    end: float = option(0.0, help="Factor at the end.", ge=0, le=1)

    def factor(self, step: int, total: int, steps_per_epoch: int) -> float:
        """See `LearningRateSchedule`."""
        return _cosine(min(1.0, step / total), self.end)


class CosineRestarts(LearningRateSchedule):
    """Cosines one after the other, each starting at the full rate.

    end + (1 - end) * (1 + cos(pi c)) / 2, c from 0 to 1 within a period; periods grow by `growth`

    Loshchilov and Hutter 2017, arXiv:1608.03983; `CosineAnnealingWarmRestarts` of PyTorch.
    """

    period: float = option(1.0, help="The first period: epochs, or below 1 a share of the run.", gt=0)
    growth: int = option(2, help="How many times as long as the last a period is.", ge=1)
    end: float = option(0.0, help="Factor at the end of a period.", ge=0, le=1)

    def factor(self, step: int, total: int, steps_per_epoch: int) -> float:
        """See `LearningRateSchedule`."""
        period = steps(self.period, total, steps_per_epoch)
        if self.growth == 1:
            step %= period
        while step >= period:
            step, period = step - period, period * self.growth
        return _cosine(step / period, self.end)


class OneCycle(LearningRateSchedule):
    """Up to the full rate, then far down: large rates in the middle find flat minima.

    From 1/start up to 1 in the share `rise` of the run, then down to 1/(start * end)

    Smith and Topin 2018, arXiv:1708.07120; `OneCycleLR` of PyTorch, whose momentum cycle is left out.
    """

    rise: float = option(0.3, help="Share of the run in which the rate rises.", gt=0, lt=1)
    start: float = option(25.0, help="Full rate over the first.", ge=1)
    end: float = option(1e4, help="First rate over the last.", ge=1)
    shape: Literal["cosine", "line"] = option("cosine", help="Both parts are half cosines, or straight.")

    def factor(self, step: int, total: int, steps_per_epoch: int) -> float:
        """See `LearningRateSchedule`."""
        top, last = self.rise * total - 1, total - 1  # steps, as PyTorch counts them
        first = 1.0 / self.start
        if step <= top:
            return self._between(first, 1.0, step / top if top else 1.0)
        return self._between(1.0, first / self.end, min(1.0, (step - top) / (last - top)))

    def _between(self, start: float, end: float, share: float) -> float:
        if self.shape == "line":
            return start + (end - start) * share
        return end + (start - end) * (1.0 + math.cos(math.pi * share)) / 2.0


def _cosine(share: float, end: float) -> float:
    return end + (1.0 - end) * (1.0 + math.cos(math.pi * share)) / 2.0
