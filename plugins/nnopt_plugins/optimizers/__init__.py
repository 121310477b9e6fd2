"""Optimizers: those of `torch.optim` that textbooks name. Any other class goes by `code:`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnopt_cli import hookimpl

if TYPE_CHECKING:
    from nnopt_cli import Component


@hookimpl
def nnopt_components() -> list[type[Component]]:
    """What this plugin provides."""
    from nnopt_plugins.optimizers.adaptive import Adadelta, Adagrad, RMSprop
    from nnopt_plugins.optimizers.descent import GD, LBFGS, SGD, Momentum, Nesterov
    from nnopt_plugins.optimizers.moments import Adam, Adamax, AdamW, NAdam, RAdam

    return [
        GD,
        SGD,
        Momentum,
        Nesterov,
        Adam,
        AdamW,
        NAdam,
        RAdam,
        Adamax,
        RMSprop,
        Adagrad,
        Adadelta,
        LBFGS,
    ]
