"""Pruning: the `prune` pass, its criteria and its granularities."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnopt_cli import hookimpl

if TYPE_CHECKING:
    from nnopt_cli import Component


@hookimpl
def nnopt_components() -> list[type[Component]]:
    """What this plugin provides."""
    from nnopt_plugins.prune.criteria import Magnitude, Random
    from nnopt_plugins.prune.granularities import NM, Block, WeightGranularity
    from nnopt_plugins.prune.passes import Prune

    return [Prune, Magnitude, Random, WeightGranularity, NM, Block]
