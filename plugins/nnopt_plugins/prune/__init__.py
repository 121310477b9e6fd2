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
    from nnopt_plugins.prune.structures import Channel, Head, Layer
    from nnopt_plugins.prune.unit_criteria import FPGM, L2, LAMP, OBD, Activation, BatchNormScale, Taylor

    criteria = [Magnitude, Random, L2, BatchNormScale, FPGM, LAMP, Taylor, OBD, Activation]
    return [Prune, *criteria, WeightGranularity, NM, Block, Channel, Head, Layer]
