"""A plugin for nnopt: the pass `roundoff` and the pruning criterion `gumbel`."""

from __future__ import annotations

from nnopt_cli import Component, hookimpl
from nnopt_roundoff.gumbel import Gumbel
from nnopt_roundoff.roundoff import Roundoff


@hookimpl
def nnopt_components() -> list[type[Component]]:
    """What this plugin provides."""
    return [Roundoff, Gumbel]
