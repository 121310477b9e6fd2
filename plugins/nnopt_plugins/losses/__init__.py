"""Losses for classes, labels and values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnopt_cli import hookimpl

if TYPE_CHECKING:
    from nnopt_cli import Component


@hookimpl
def nnopt_components() -> list[type[Component]]:
    """What this plugin provides."""
    from nnopt_plugins.losses.classes import KL, BinaryCrossEntropy, CrossEntropy
    from nnopt_plugins.losses.values import MAE, MSE, Huber

    return [CrossEntropy, BinaryCrossEntropy, MSE, MAE, Huber, KL]
