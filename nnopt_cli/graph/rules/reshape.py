"""Reshapes: merged dimensions carry the labels of one of them, a split dimension keeps one factor alive.

Splitting C channels into h x d is the only ambiguity of the analysis: whole rows can go (heads),
or the same columns of every row. Rows that become the batch of an attention are heads and go
whole; otherwise the widest factor stays alive, since it leaves the finest choice.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from torch.fx import Node

from nnopt_cli.graph.coupling import Coupling, sizes
from nnopt_cli.graph.heads import head_axes
from nnopt_cli.graph.labels import Array, Dim, Value
from nnopt_cli.graph.rules.base import Table, UnknownFormError, is_one, register
from nnopt_cli.graph.shapes import align

RULES: Table = {}


@register(RULES, "view", "reshape", "flatten", "unflatten", "_unsafe_view")
def reshape(coupling: Coupling, node: Node) -> Value:
    """The same elements in row-major order, in other dimensions."""
    x, source, target = coupling.value(node.args[0]), sizes(node.args[0]), sizes(node)
    if all(dim is None for dim in x):
        return [None] * len(target)
    out: Value = []
    for block in align(source, target):
        flat = _merge(coupling, x[block.i0 : block.i1], source[block.i0 : block.i1])
        out.extend(_split(coupling, node, flat, target[block.o0 : block.o1], block.o0))
    return out


@register(RULES, "view_as", "reshape_as")
def reshape_as(coupling: Coupling, node: Node) -> Value:
    """Like `reshape`; the sizes are those of another value, whose channels are then the same ones."""
    like = coupling.value(node.args[1])
    return [
        coupling.labels.equate(dim, other) for dim, other in zip(reshape(coupling, node), like, strict=True)
    ]


def _merge(coupling: Coupling, dims: Value, shape: list[Any]) -> Dim:
    """Labels of several dimensions as one: the widest keeps its labels, the others freeze."""
    alive = {axis: dim for axis, dim in enumerate(dims) if dim is not None}
    if len(dims) == 1 or not alive:
        return dims[0] if dims else None
    keep = max(alive, key=lambda axis: len(alive[axis]))
    for axis, dim in alive.items():
        if axis != keep:
            coupling.labels.freeze(dim)
    inner = shape[keep + 1 :]
    if not all(isinstance(size, int) for size in inner):
        coupling.labels.freeze(alive[keep])
        return None
    flat = np.repeat(alive[keep], math.prod(inner))
    outer = shape[:keep]
    if all(isinstance(size, int) for size in outer):
        return np.tile(flat, math.prod(outer))
    return flat  # one period: the symbolic dimensions in front only repeat it


def _split(coupling: Coupling, node: Node, flat: Dim, target: list[Any], first: int) -> Value:
    """Labels of one dimension as several, of which one stays alive."""
    out: Value = [None] * len(target)
    wide = [axis for axis, size in enumerate(target) if not is_one(size)]
    if flat is None or len(wide) <= 1:
        if wide:
            out[wide[0]] = flat
        else:
            coupling.labels.freeze(flat)
        return out
    start, grid = _period(target, len(flat))
    if len(grid) == 1:  # the period is the last dimension: nothing was split
        out[start] = flat
        return out
    heads = head_axes(node)
    factors = [axis for axis, size in enumerate(grid) if size > 1]
    as_heads = [axis for axis in factors if first + start + axis in heads]
    live = as_heads[0] if as_heads else max(factors, key=lambda axis: (grid[axis], -axis))
    rows = _rows(coupling, flat, grid, live)
    if as_heads:
        coupling.heads.append(rows)
    out[start + live] = rows
    return out


def _rows(coupling: Coupling, flat: Array, grid: list[int], live: int) -> Array:
    box = np.moveaxis(flat.reshape(grid), live, 0)
    return coupling.labels.tie_rows(box.reshape(grid[live], -1))


def _period(target: list[Any], period: int) -> tuple[int, list[int]]:
    """The last dimensions of `target` that hold one period, and their sizes within it.

    Raises UnknownFormError where the period ends inside a factor of symbolic size.
    """
    start, product = len(target), 1
    grid: list[int] = []
    while start > 0 and product < period:
        start -= 1
        size = target[start]
        if not isinstance(size, int):  # e.g. batch * heads: the rest of the period repeats in it
            if period % product:
                raise UnknownFormError("channels split across a dimension of unknown size")
            size = period // product
        grid.insert(0, size)
        product *= size
    if product != period:
        raise UnknownFormError("factors that do not divide the channels")
    return start, grid
