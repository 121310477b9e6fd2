"""Sizes that a graph has baked in, put right after a cut: one entry per operator that holds some."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.fx import Node

from nnopt_cli.graph.coupling import Coupling, sizes
from nnopt_cli.graph.keep import Keep
from nnopt_cli.graph.labels import Array, Value
from nnopt_cli.graph.rules.base import argument, is_one, operator_name
from nnopt_cli.graph.rules.contract import convolution_form
from nnopt_cli.graph.rules.layout import slice_bounds

Resize = Callable[[Coupling, Keep, Node, Node], None]  # (…, node of the old graph, node to change)
TABLE: dict[str, Resize] = {}


def resize(coupling: Coupling, keep: Keep, old: Node, new: Node) -> None:
    """Change the arguments of `new`, a copy of `old`, to the sizes that stay."""
    entry = TABLE.get(operator_name(old))
    if entry is not None:
        entry(coupling, keep, old, new)


def _sizes(*names: str) -> Callable[[Resize], Resize]:
    def put(entry: Resize) -> Resize:
        TABLE.update(dict.fromkeys(names, entry))
        return entry

    return put


def _put(node: Node, index: int, name: str, value: Any) -> None:
    """Set an argument where it stands, by position or by name."""
    if len(node.args) > index:
        node.args = (*node.args[:index], value, *node.args[index + 1 :])
    else:
        node.kwargs = {**node.kwargs, name: value}


def _kept(keep: Keep, new: Node, given: Sequence[Any], dims: Value) -> list[Any]:
    """Sizes as given, with the kept counts put in."""
    out = []
    for size, dim in zip(given, dims, strict=True):
        if not keep.touches(dim) or size == -1:
            out.append(size)
        elif isinstance(size, Node):  # a symbolic size times the channels: batch * heads
            assert dim is not None
            out.append(_scaled(new, size, len(dim), keep.count(dim)))
        else:
            out.append(keep.count(dim))
    return out


def _scaled(new: Node, size: Node, before: int, after: int) -> Node:
    with new.graph.inserting_before(new):
        batch = new.graph.call_function(operator.floordiv, (size, before))
        batch.meta["val"] = size.meta["val"] // before
        scaled = new.graph.call_function(operator.mul, (batch, after))
        scaled.meta["val"] = batch.meta["val"] * after
    return scaled


@_sizes("view", "reshape", "expand", "_unsafe_view", "new_zeros", "new_ones", "new_full", "new_empty")
def _shaped(coupling: Coupling, keep: Keep, old: Node, new: Node) -> None:
    given: Any = argument(new, 1, "size")
    if any(keep.touches(dim) for dim in coupling.value(old)):
        _put(new, 1, "size", _kept(keep, new, given, coupling.value(old)))


@_sizes("repeat")
def _repeated(coupling: Coupling, keep: Keep, old: Node, new: Node) -> None:
    """Counts stay, but for entries that are all alike: of these the kept number."""
    x, out = coupling.value(old.args[0]), coupling.value(old)
    times: list[Any] = list(argument(new, 1, "repeats"))
    for axis, dim in enumerate(out):
        inner = axis - (len(out) - len(x))
        if keep.touches(dim) and (inner < 0 or is_one(sizes(old.args[0])[inner])):
            times[axis] = keep.count(dim)
    _put(new, 1, "repeats", times)


@_sizes("zeros", "ones", "full", "empty", "rand", "randn")
def _created(coupling: Coupling, keep: Keep, old: Node, new: Node) -> None:
    given: Any = argument(new, 0, "size")
    _put(new, 0, "size", _kept(keep, new, given, coupling.value(old)))


@_sizes("unflatten")
def _unflattened(coupling: Coupling, keep: Keep, old: Node, new: Node) -> None:
    given: Any = argument(new, 2, "sizes")
    at = argument(old, 1, "dim") % len(coupling.value(old.args[0]))
    _put(new, 2, "sizes", _kept(keep, new, given, coupling.value(old)[at : at + len(given)]))


@_sizes("split", "split_with_sizes", "chunk", "unsafe_chunk", "unsafe_split", "tensor_split")
def _split(coupling: Coupling, keep: Keep, old: Node, new: Node) -> None:
    x = coupling.value(old.args[0])
    at = argument(old, 2, "dim", 0) % len(x)
    if keep.touches(x[at]):  # the pieces may differ in size now
        pieces = [keep.count(piece[at]) for piece in coupling.values[old]]
        new.target, new.args, new.kwargs = (
            torch.ops.aten.split_with_sizes.default,
            (new.args[0], pieces, at),
            {},
        )


@_sizes("slice", "narrow")
def _sliced(coupling: Coupling, keep: Keep, old: Node, new: Node) -> None:
    x = coupling.value(old.args[0])
    at = argument(old, 1, "dim", 0) % len(x)
    dim = x[at]
    if dim is not None and keep.touches(dim):
        start, stop, step = slice_bounds(old)
        if step != 1:
            return  # whole runs went: the same start and step pick what stays of them
        bounds = keep.count(dim[:start]), keep.count(dim[:stop])
        new.target, new.args, new.kwargs = torch.ops.aten.slice.Tensor, (new.args[0], at, *bounds), {}


@_sizes("pad", "constant_pad_nd")
def _padded(coupling: Coupling, keep: Keep, old: Node, new: Node) -> None:
    given: Any = old.args[1]
    inner, outer, amounts = coupling.value(old.args[0]), coupling.value(old), list(given)
    for i in range(len(amounts) // 2):
        whole, part = outer[-1 - i], inner[-1 - i]
        if whole is not None and part is not None and (amounts[2 * i] or amounts[2 * i + 1]):
            before = amounts[2 * i]
            amounts[2 * i] = keep.count(whole[:before])
            amounts[2 * i + 1] = keep.count(whole[before + len(part) :])
    new.args = (new.args[0], amounts, *new.args[2:])


@_sizes(
    "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "convolution"
)
def _convolution(coupling: Coupling, keep: Keep, old: Node, new: Node) -> None:
    groups, _ = convolution_form(old)
    channels = coupling.value(old.args[0])[1]
    if groups > 1 and channels is not None and keep.touches(channels):
        at = 8 if operator_name(old) == "convolution" else 6
        _put(new, at, "groups", _groups_left(keep, channels, groups))


@_sizes("group_norm")
def _group_norm(coupling: Coupling, keep: Keep, old: Node, new: Node) -> None:
    channels = coupling.value(old.args[0])[1]
    if channels is not None and keep.touches(channels):
        groups = argument(old, 1, "num_groups")
        _put(new, 1, "num_groups", _groups_left(keep, channels, groups))


def _groups_left(keep: Keep, channels: Array, groups: int) -> int:
    """Fewer where whole groups go; as many as before where each of them becomes narrower."""
    per_group = keep.mask(channels).reshape(groups, -1).sum(axis=1)
    return int((per_group > 0).sum())


@_sizes("layer_norm", "rms_norm")
def _layer_norm(coupling: Coupling, keep: Keep, old: Node, new: Node) -> None:
    given: Any = argument(old, 1, "normalized_shape")
    _put(new, 1, "normalized_shape", _kept(keep, new, given, coupling.value(old)[-len(given) :]))


@_sizes("scaled_dot_product_attention")
def _attention(coupling: Coupling, keep: Keep, old: Node, new: Node) -> None:
    width = coupling.value(old.args[0])[-1]
    if width is not None and keep.touches(width) and argument(old, 6, "scale") is None:
        new.kwargs = {**new.kwargs, "scale": 1 / math.sqrt(len(width))}  # the width it was trained with
