"""Schedules of the learning rate: what it is multiplied by, step by step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnopt_cli import hookimpl

if TYPE_CHECKING:
    from nnopt_cli import Component


@hookimpl
def nnopt_components() -> list[type[Component]]:
    """What this plugin provides."""
    from nnopt_plugins.schedules.curves import Cosine, CosineRestarts, OneCycle, Polynomial
    from nnopt_plugins.schedules.decays import Constant, Exponential, MultiStep, Step, TimeBased
    from nnopt_plugins.schedules.plateau import ReduceOnPlateau

    return [
        Constant,
        Step,
        MultiStep,
        Exponential,
        TimeBased,
        Polynomial,
        Cosine,
        CosineRestarts,
        OneCycle,
        ReduceOnPlateau,
    ]
