"""The smallest network there is: one linear unit, y = w x + b."""

from __future__ import annotations

from torch import nn


def build() -> nn.Module:
    """One input, one output; fit to the points of `line.csv`, it should learn y = x."""
    return nn.Linear(1, 1)
