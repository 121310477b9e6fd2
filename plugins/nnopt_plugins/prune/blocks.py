"""Blocks of a matrix, as array functions."""

from __future__ import annotations

import numpy as np

from nnopt_cli import Array


def fold(op: np.ufunc, values: Array, width: int, rows: int, columns: int) -> Array:
    """Combine each block of `rows` x `columns` by `op`: down its columns, then along its row.

    Args:
        op: a binary ufunc.
        values: 1-D, whole rows of `width`, starting at the top of a row of blocks.
        width: columns of the matrix.
        rows: of a block; fewer at the bottom.
        columns: of a block; fewer at the right.

    Returns:
        1-D, block by block, row-major. Every block is combined in the same order whatever stands beside it.
    """
    matrix = values.reshape(-1, width)
    tall = matrix[::rows].copy()
    for row in range(1, rows):
        below = matrix[row::rows]
        op(tall[: len(below)], below, out=tall[: len(below)])
    out = tall[:, ::columns].copy()
    for column in range(1, columns):
        beside = tall[:, column::columns]
        op(out[:, : beside.shape[1]], beside, out=out[:, : beside.shape[1]])
    return out.reshape(-1)


def unfold(blocks: Array, count: int, width: int, rows: int, columns: int) -> Array:
    """Give each of `count` elements its block's value; the inverse of `fold`."""
    across = -(-width // columns)
    wide = np.repeat(blocks.reshape(-1, across), columns, axis=1)[:, :width]
    return np.repeat(wide, rows, axis=0).reshape(-1)[:count]
