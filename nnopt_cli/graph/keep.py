"""`Keep`: which channels stay, once some classes are removed."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from nnopt_cli.graph.coupling import Coupling
from nnopt_cli.graph.labels import FROZEN, Array, Dim

Mask = npt.NDArray[np.bool_]


class Keep:
    """Answers, for the labels of any dimension, what of it stays."""

    def __init__(self, coupling: Coupling, removed: Array) -> None:
        """`removed`: classes (roots) of `coupling` to remove; the frozen class never goes."""
        gone = np.zeros(coupling.labels.count, bool)
        gone[removed] = True
        gone[FROZEN] = False
        self._kept: Mask = ~gone[coupling.roots]

    def mask(self, dim: Array) -> Mask:
        """For each index of `dim`, whether it stays."""
        out: Mask = self._kept[dim]
        return out

    def indices(self, dim: Array) -> Array:
        """The indices of `dim` that stay."""
        return np.flatnonzero(self._kept[dim])

    def count(self, dim: Dim, size: Any = None) -> Any:
        """How many indices of `dim` stay; `size` where it is not labelled."""
        return size if dim is None else int(self._kept[dim].sum())

    def count_classes(self, classes: Array) -> int:
        """How many of some classes stay."""
        return int(self._kept[classes].sum())

    def touches(self, dim: Dim) -> bool:
        """Whether anything of `dim` goes."""
        return dim is not None and not bool(self._kept[dim].all())
