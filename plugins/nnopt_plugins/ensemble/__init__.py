"""Ensembles: several models become one, by their weights or by their outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnopt_cli import hookimpl

if TYPE_CHECKING:
    from nnopt_cli import Component


@hookimpl
def nnopt_components() -> list[type[Component]]:
    """What this plugin provides."""
    from nnopt_plugins.ensemble.alignment import Activations, Weights
    from nnopt_plugins.ensemble.auto import Auto
    from nnopt_plugins.ensemble.combinations import EMA, SWA, Karcher, Linear, ModelStock, Slerp
    from nnopt_plugins.ensemble.differences import DareLinear, DareTies, TaskArithmetic, Ties
    from nnopt_plugins.ensemble.informed import Fisher, Soup
    from nnopt_plugins.ensemble.outputs import Geometric, Logits, Mean, Stacking, Vote, Weighted

    averages = [Linear, Slerp, Karcher, ModelStock, SWA, EMA]
    outputs = [Mean, Logits, Weighted, Geometric, Vote, Stacking]
    alignments = [Weights, Activations]
    weights = [*averages, TaskArithmetic, Ties, DareLinear, DareTies, Fisher, Soup]
    return [Auto, *weights, *outputs, *alignments]
