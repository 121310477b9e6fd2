"""Initializers: how weights are drawn before training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnopt_cli import hookimpl

if TYPE_CHECKING:
    from nnopt_cli import Component


@hookimpl
def nnopt_components() -> list[type[Component]]:
    """What this plugin provides."""
    from nnopt_plugins.initializers.fans import GlorotNormal, GlorotUniform, HeNormal, HeUniform
    from nnopt_plugins.initializers.plain import Normal, Orthogonal, TruncatedNormal, Uniform

    return [
        Uniform,
        Normal,
        GlorotUniform,
        GlorotNormal,
        HeUniform,
        HeNormal,
        Orthogonal,
        TruncatedNormal,
    ]
