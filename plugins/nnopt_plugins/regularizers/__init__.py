"""Regularizers: what is added to the loss, done to weights beside it, or to dropout."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnopt_cli import hookimpl

if TYPE_CHECKING:
    from nnopt_cli import Component


@hookimpl
def nnopt_components() -> list[type[Component]]:
    """What this plugin provides."""
    from nnopt_plugins.regularizers.dropout import Dropout
    from nnopt_plugins.regularizers.norms import L1, L2, ElasticNet, WeightDecay
    from nnopt_plugins.regularizers.structure import GroupLasso, Orthogonality

    return [L1, L2, WeightDecay, ElasticNet, GroupLasso, Orthogonality, Dropout]
