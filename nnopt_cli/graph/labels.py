"""Labels: one number per index of a tensor dimension; equal labels are the same channel.

Rules only *record* that labels are equal. The classes are found once, at the end, for all of them
(connected components by hooking and pointer jumping, after Shiloach and Vishkin 1982, vectorised),
so the cost grows with the graph and no Python loop runs over channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.int64]
Dim = Array | None  # labels along one dimension; None: nothing can be removed along it
Value = list[Dim]  # one entry per dimension of a tensor

Reading = Sequence[Array]  # grids (2-D) of labels, each row of which goes as a whole

FROZEN = 0  # the label that absorbs: whatever equals it stays


class Labels:
    """Allots labels and records which are equal.

    The labels of a dimension whose size is symbolic (`batch * heads`) are one period: they repeat.
    """

    def __init__(self) -> None:
        self.count = 1
        self._left: list[Array] = []
        self._right: list[Array] = []
        self._choices: list[Sequence[Reading]] = []

    def fresh(self, size: int) -> Array:
        """`size` labels that equal nothing yet."""
        out = np.arange(self.count, self.count + size, dtype=np.int64)
        self.count += size
        return out

    def equate(self, *dims: Dim) -> Dim:
        """Record that dimensions run over the same channels, and return one; if any is None, all freeze.

        Raises ValueError where their lengths differ.
        """
        if any(dim is None for dim in dims):
            for dim in dims:
                self.freeze(dim)
            return None
        first = dims[0]
        assert first is not None
        for dim in dims[1:]:
            if dim is not first and dim is not None:
                if dim.shape != first.shape:
                    raise ValueError(f"{len(dim)} channels cannot equal {len(first)}")
                self._left.append(first)
                self._right.append(dim)
        return first

    def freeze(self, dim: Dim) -> None:
        """Record that nothing may be removed along `dim`."""
        if dim is not None:
            self._left.append(dim)
            self._right.append(np.zeros(dim.size, np.int64))

    def tie_rows(self, grid: Array) -> Array:
        """Record that each row of `grid` (2-D) goes as a whole; return one label per row."""
        self._left.append(grid[:, 1:].reshape(-1))
        self._right.append(np.repeat(grid[:, 0], grid.shape[1] - 1))
        return np.ascontiguousarray(grid[:, 0])

    def offer(self, *readings: Reading) -> None:
        """Record a choice: the rows of the grids of one of the readings go as wholes."""
        self._choices.append(readings)

    def solve(self) -> Array:
        """For every label the smallest label that it equals; frozen ones get `FROZEN`.

        Choices are taken in order, each for the reading that leaves more units apart.
        """
        root = np.arange(self.count, dtype=np.int64)
        if self._left:
            root = components(root, np.concatenate(self._left), np.concatenate(self._right))
        for readings in self._choices:
            merges = [_merge(root, reading) for reading in readings]
            seen, into = max(merges, key=lambda merge: len(np.unique(merge[1][merge[1] != FROZEN])))
            place = np.arange(self.count, dtype=np.int64)
            place[seen] = into
            root = place[root]
        return root


def components(root: Array, u: Array, v: Array) -> Array:
    """Every class number's smallest equal, when `u` and `v` are pairs of equal members."""
    while True:
        ru, rv = root[u], root[v]
        apart = ru != rv
        if not apart.any():
            return root
        u, v, ru, rv = u[apart], v[apart], ru[apart], rv[apart]
        np.minimum.at(root, np.maximum(ru, rv), np.minimum(ru, rv))
        while True:
            jumped = root[root]
            if np.array_equal(jumped, root):
                break
            root = jumped


def _merge(root: Array, reading: Reading) -> tuple[Array, Array]:
    """The classes in the grids of a reading, and the classes that they become."""
    seen, index = np.unique(np.concatenate([root[grid].reshape(-1) for grid in reading]), return_inverse=True)
    pairs, start = [], 0
    for grid in reading:
        rows = index[start : start + grid.size].reshape(grid.shape)
        pairs.append((np.repeat(rows[:, 0], grid.shape[1] - 1), rows[:, 1:].reshape(-1)))
        start += grid.size
    u, v = (np.concatenate(side) for side in zip(*pairs, strict=True))
    return seen, seen[components(np.arange(len(seen), dtype=np.int64), u, v)]
