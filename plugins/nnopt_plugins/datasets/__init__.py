"""Datasets: what `--data` can name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnopt_cli import hookimpl

if TYPE_CHECKING:
    from nnopt_cli import Component


@hookimpl
def nnopt_components() -> list[type[Component]]:
    """What this plugin provides."""
    from nnopt_plugins.datasets.arrays import Arrays
    from nnopt_plugins.datasets.code import Code
    from nnopt_plugins.datasets.digits import Digits
    from nnopt_plugins.datasets.folder import Folder
    from nnopt_plugins.datasets.parquet import Parquet
    from nnopt_plugins.datasets.text import CSV

    return [Digits, Parquet, Folder, Arrays, CSV, Code]
