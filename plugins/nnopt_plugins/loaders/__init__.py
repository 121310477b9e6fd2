"""Loaders: networks that libraries build by name, for `--arch`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnopt_cli import hookimpl

if TYPE_CHECKING:
    from nnopt_cli import Component


@hookimpl
def nnopt_components() -> list[type[Component]]:
    """What this plugin provides."""
    from nnopt_plugins.loaders.huggingface import HuggingFace
    from nnopt_plugins.loaders.timm import Timm
    from nnopt_plugins.loaders.torchvision import Torchvision

    return [Timm, Torchvision, HuggingFace]
