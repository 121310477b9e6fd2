"""How long something lasts, as a number of steps."""

from __future__ import annotations


def steps(span: float, total: int, steps_per_epoch: int) -> int:
    """Optimizer steps in `span`: a share of the `total` below 1, a number of epochs from 1 on; at least 1."""
    return max(1, round(span * (total if span < 1 else steps_per_epoch)))
