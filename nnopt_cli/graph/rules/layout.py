"""Operators that move, cut and join dimensions without computing."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch.fx import Node

from nnopt_cli.graph.coupling import Coupling, sizes
from nnopt_cli.graph.labels import Dim, Value
from nnopt_cli.graph.rules.base import (
    Table,
    UnknownFormError,
    argument,
    axes,
    is_one,
    operator_name,
    register,
)

RULES: Table = {}


@register(RULES, "permute")
def permute(coupling: Coupling, node: Node) -> Value:
    """The dimensions in another order."""
    x = coupling.value(node.args[0])
    order: Any = argument(node, 1, "dims")
    return [x[axis] for axis in order]


@register(RULES, "transpose", "swapaxes", "swapdims")
def transpose(coupling: Coupling, node: Node) -> Value:
    """Two dimensions swapped."""
    x = list(coupling.value(node.args[0]))
    a, b = argument(node, 1, "dim0"), argument(node, 2, "dim1")
    x[a], x[b] = x[b], x[a]
    return x


@register(RULES, "t", "numpy_T", "matrix_H", "mT", "adjoint")
def flipped(coupling: Coupling, node: Node) -> Value:
    """The last two dimensions swapped."""
    x = list(coupling.value(node.args[0]))
    if operator_name(node) == "numpy_T":
        return x[::-1]
    return x if len(x) < 2 else [*x[:-2], x[-1], x[-2]]


@register(RULES, "movedim", "moveaxis")
def movedim(coupling: Coupling, node: Node) -> Value:
    """Some dimensions moved to other places."""
    x = coupling.value(node.args[0])
    rank = len(x)
    source, target = (axes(argument(node, i, name), rank) for i, name in ((1, "source"), (2, "destination")))
    rest = iter(axis for axis in range(rank) if axis not in source)
    placed = dict(zip(target, source, strict=True))
    return [x[placed[axis] if axis in placed else next(rest)] for axis in range(rank)]


@register(RULES, "unsqueeze")
def unsqueeze(coupling: Coupling, node: Node) -> Value:
    """A dimension of size one more."""
    x = list(coupling.value(node.args[0]))
    x.insert(argument(node, 1, "dim") % (len(x) + 1), None)
    return x


@register(RULES, "squeeze")
def squeeze(coupling: Coupling, node: Node) -> Value:
    """Dimensions of size one fewer."""
    x, shape = coupling.value(node.args[0]), sizes(node.args[0])
    gone = {axis for axis in axes(argument(node, 1, "dim"), len(x)) if is_one(shape[axis])}
    for axis in gone:
        coupling.labels.freeze(x[axis])
    return [dim for axis, dim in enumerate(x) if axis not in gone]


@register(RULES, "expand", "expand_as")
def expand(coupling: Coupling, node: Node) -> Value:
    """Dimensions of size one repeated, so that all their entries are alike; new ones in front."""
    x, before, after = coupling.value(node.args[0]), sizes(node.args[0]), sizes(node)
    lead = len(after) - len(x)
    like = coupling.value(node.args[1]) if operator_name(node) == "expand_as" else None
    out: Value = []
    for axis, size in enumerate(after):
        dim = x[axis - lead] if axis >= lead else None
        if axis < lead or (is_one(before[axis - lead]) and not is_one(size)):
            coupling.labels.freeze(dim)
            out.append(_alike(coupling, size) if like is None else like[axis])
        else:
            out.append(dim if like is None else coupling.labels.equate(dim, like[axis]))
    return out


def _alike(coupling: Coupling, size: Any) -> Dim:
    """Labels of entries that are all the same: any may go, with whatever they meet."""
    return coupling.labels.fresh(size) if isinstance(size, int) and size > 1 else None


@register(RULES, "repeat")
def repeat(coupling: Coupling, node: Node) -> Value:
    """Whole dimensions tiled."""
    x, before = coupling.value(node.args[0]), sizes(node.args[0])
    times: Any = argument(node, 1, "repeats")
    lead = len(times) - len(x)
    out: Value = []
    for axis, count in enumerate(times):
        dim = x[axis - lead] if axis >= lead else None
        if axis < lead or is_one(before[axis - lead]):
            coupling.labels.freeze(dim)
            out.append(_alike(coupling, count))
        elif dim is None or isinstance(count, int):
            out.append(dim if dim is None or count == 1 else np.tile(dim, count))
        else:
            coupling.labels.freeze(dim)
            out.append(None)
    return out


@register(RULES, "repeat_interleave")
def repeat_interleave(coupling: Coupling, node: Node) -> Value:
    """Each index repeated in place (grouped-query attention repeats key heads so)."""
    count, at = argument(node, 1, "repeats"), argument(node, 2, "dim")
    if not isinstance(count, int) or at is None:
        raise UnknownFormError("repeats that differ per index, or of the flattened tensor")
    x = list(coupling.value(node.args[0]))
    dim = x[at]
    x[at] = None if dim is None else np.repeat(dim, count)
    return x


@register(RULES, "cat", "concat", "concatenate")
def cat(coupling: Coupling, node: Node) -> Value:
    """Labels joined along one axis; the other axes run over the same channels."""
    parts: Any = [part for part in node.args[0] if sizes(part) != [0]]  # type: ignore[union-attr]
    rank = len(sizes(node))
    at = argument(node, 1, "dim", 0) % rank
    out: Value = []
    for axis in range(rank):
        dims = [coupling.value(part)[axis] for part in parts]
        if axis != at:
            out.append(coupling.labels.equate(*dims))
        elif isinstance(sizes(node)[axis], int) and any(dim is not None for dim in dims):
            frozen = [np.zeros(sizes(part)[axis], np.int64) for part in parts]
            pairs = zip(dims, frozen, strict=True)
            out.append(np.concatenate([none if dim is None else dim for dim, none in pairs]))
        else:
            for dim in dims:
                coupling.labels.freeze(dim)
            out.append(None)
    return out


@register(RULES, "stack")
def stack(coupling: Coupling, node: Node) -> Value:
    """Equal tensors beside each other along a new axis."""
    parts: Any = node.args[0]
    columns = zip(*(coupling.value(part) for part in parts), strict=True)
    out: Value = [coupling.labels.equate(*dims) for dims in columns]
    out.insert(argument(node, 1, "dim", 0) % (len(out) + 1), None)
    return out


@register(RULES, "split", "split_with_sizes", "chunk", "unsafe_chunk", "unsafe_split", "tensor_split")
def split(coupling: Coupling, node: Node) -> Any:
    """Consecutive pieces of one axis."""
    x = coupling.value(node.args[0])
    at = argument(node, 2, "dim", 0) % len(x)
    dim, start, out = x[at], 0, []
    for piece in node.meta["val"]:
        value = list(x)
        if dim is not None:
            value[at] = dim[start : start + piece.shape[at]]
            start += piece.shape[at]
        out.append(value)
    return out


@register(RULES, "unbind")
def unbind(coupling: Coupling, node: Node) -> Any:
    """One tensor per index of an axis, so the axis stays whole."""
    x = coupling.value(node.args[0])
    at = argument(node, 1, "dim", 0) % len(x)
    coupling.labels.freeze(x[at])
    return [[dim for axis, dim in enumerate(x) if axis != at] for _ in node.meta["val"]]


@register(RULES, "select")
def select(coupling: Coupling, node: Node) -> Value:
    """One index of an axis, which must then stay where it is."""
    x = coupling.value(node.args[0])
    at = argument(node, 1, "dim") % len(x)
    coupling.labels.freeze(x[at])
    return [dim for axis, dim in enumerate(x) if axis != at]


@register(RULES, "slice", "narrow")
def slice_(coupling: Coupling, node: Node) -> Value:
    """Some indices of an axis. With a step, runs of that many go as a whole, so that the step still fits."""
    x = list(coupling.value(node.args[0]))
    at = argument(node, 1, "dim", 0) % len(x)
    dim = x[at]
    if dim is not None:
        start, stop, step = slice_bounds(node)
        known = isinstance(start, int) and isinstance(stop, int)
        if known and step == 1:
            x[at] = dim[start:stop]
        elif known and start < step and stop == len(dim) and len(dim) % step == 0:
            x[at] = coupling.labels.tie_rows(dim.reshape(-1, step))
        else:
            coupling.labels.freeze(dim)
            x[at] = None
    return x


def slice_bounds(node: Node) -> tuple[Any, Any, Any]:
    """Start, stop and step of a slice along a dimension; non-negative where its size is a number."""
    if operator_name(node) == "narrow":
        start, length = argument(node, 2, "start"), argument(node, 3, "length")
        return start, start + length, 1
    size = sizes(node.args[0])[argument(node, 1, "dim", 0)]
    start, stop, step = argument(node, 2, "start"), argument(node, 3, "end"), argument(node, 4, "step", 1)
    known = isinstance(size, int) and all(end is None or isinstance(end, int) for end in (start, stop))
    return (*slice(start, stop).indices(size)[:2], step) if known else (start, stop, step)


@register(RULES, "getitem")
def getitem(coupling: Coupling, node: Node) -> Any:
    """One of several outputs."""
    index: Any = node.args[1]
    return coupling.values[node.args[0]][index]  # type: ignore[index]


@register(RULES, "flip")
def flip(coupling: Coupling, node: Node) -> Value:
    """An axis reversed."""
    x = list(coupling.value(node.args[0]))
    for axis in axes(argument(node, 1, "dims"), len(x)):
        dim = x[axis]
        x[axis] = None if dim is None else dim[::-1].copy()
    return x


@register(RULES, "roll")
def roll(coupling: Coupling, node: Node) -> Value:
    """An axis rotated by a fixed number of places, so it stays whole."""
    x = list(coupling.value(node.args[0]))
    for axis in axes(argument(node, 2, "dims"), len(x)):
        coupling.labels.freeze(x[axis])
        x[axis] = None
    return x


@register(RULES, "tril", "triu")
def triangle(coupling: Coupling, node: Node) -> Value:
    """The last two dimensions are positions, held against each other."""
    x = coupling.value(node.args[0])
    for dim in x[-2:]:
        coupling.labels.freeze(dim)
    return [*x[:-2], None, None]


@register(RULES, "view_as_real")
def view_as_real(coupling: Coupling, node: Node) -> Value:
    """A last dimension for the real and the imaginary part."""
    return [*coupling.value(node.args[0]), None]


@register(RULES, "view_as_complex")
def view_as_complex(coupling: Coupling, node: Node) -> Value:
    """The last dimension becomes the real and the imaginary part."""
    x = coupling.value(node.args[0])
    coupling.labels.freeze(x[-1])
    return list(x[:-1])


@register(RULES, "unfold")
def unfold(coupling: Coupling, node: Node) -> Value:
    """Windows along an axis, which stays whole; their size comes last."""
    x = list(coupling.value(node.args[0]))
    at = argument(node, 1, "dimension") % len(x)
    coupling.labels.freeze(x[at])
    x[at] = None
    return [*x, None]


@register(RULES, "diagonal")
def diagonal(coupling: Coupling, node: Node) -> Value:
    """Two axes are read together; what is left of them comes last."""
    x = coupling.value(node.args[0])
    pair = {argument(node, 2, "dim1", 0) % len(x), argument(node, 3, "dim2", 1) % len(x)}
    for axis in pair:
        coupling.labels.freeze(x[axis])
    return [*(dim for axis, dim in enumerate(x) if axis not in pair), None]
