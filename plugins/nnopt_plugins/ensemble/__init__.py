"""Ensembles: several models become one, by their weights or by their outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnopt_cli import hookimpl

if TYPE_CHECKING:
    from nnopt_cli import Component


@hookimpl
def nnopt_components() -> list[type[Component]]:
    """What this plugin provides."""
    from nnopt_plugins.ensemble.auto import Auto
    from nnopt_plugins.ensemble.combinations import EMA, SWA, Karcher, Linear, ModelStock, Slerp
    from nnopt_plugins.ensemble.differences import DareLinear, DareTies, TaskArithmetic, Ties

    averages = [Linear, Slerp, Karcher, ModelStock, SWA, EMA]
    return [Auto, *averages, TaskArithmetic, Ties, DareLinear, DareTies]
