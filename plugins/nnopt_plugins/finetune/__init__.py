"""Fine-tuning: the pass `finetune`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnopt_cli import hookimpl

if TYPE_CHECKING:
    from nnopt_cli import Component


@hookimpl
def nnopt_components() -> list[type[Component]]:
    """What this plugin provides."""
    from nnopt_plugins.finetune.passes import Finetune

    return [Finetune]
