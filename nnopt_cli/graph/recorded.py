"""The fake tensors that a graph records as its nodes' values, put right after a cut.

The labels say what is left of every dimension, so nothing needs to be traced again: that would cost
more than all the rest of a cut, as every operator would reason about symbolic sizes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, Node

from nnopt_cli.graph.coupling import Coupling, is_tensor
from nnopt_cli.graph.keep import Keep
from nnopt_cli.graph.labels import Value


def fake_mode(graph: Graph) -> Any:
    """The fake-tensor mode that a graph's recorded values belong to."""
    return next(node.meta["val"].fake_mode for node in graph.nodes if is_tensor(node))


def record_sizes(mode: Any, coupling: Coupling, keep: Keep, pairs: Iterable[tuple[Node, Node]]) -> None:
    """Give the copies of nodes the sizes that `keep` leaves.

    Args:
        mode: the fake-tensor mode of the graph.
        coupling: the channels of the original.
        keep: which of them stay.
        pairs: every node of the original with its copy.
    """
    made: dict[object, Tensor] = {}
    with mode, torch.no_grad():
        for old, new in pairs:
            if coupling.values.get(old) is not None and "val" in new.meta:
                new.meta["val"] = _resized(keep, coupling.values[old], new.meta["val"], made)


def _resized(keep: Keep, value: Any, recorded: Any, made: dict[object, Tensor]) -> Any:
    if isinstance(recorded, tuple | list):
        parts = zip(value, recorded, strict=True)
        return type(recorded)(_resized(keep, part, tensor, made) for part, tensor in parts)
    if not isinstance(recorded, Tensor) or not any(keep.touches(dim) for dim in value):
        return recorded
    shape = _shape(keep, value, recorded)
    strides = _strides(shape, recorded)
    key = (*map(str, (*shape, "|", *strides)), recorded.dtype, recorded.device)
    if key not in made:
        made[key] = torch.empty_strided(shape, strides, dtype=recorded.dtype, device=recorded.device)
    return made[key]


def _shape(keep: Keep, value: Value, recorded: Tensor) -> list[Any]:
    shape: list[Any] = list(recorded.shape)
    for axis, dim in enumerate(value):
        if dim is not None and keep.touches(dim):
            repeats = shape[axis] // len(dim)  # more than one where a symbolic size is in it: batch * heads
            shape[axis] = repeats * keep.count(dim)
    return shape


def _strides(shape: list[Any], like: Tensor) -> list[Any]:
    """Dense strides with the dimensions in the order of those of `like`; expanded ones stay so."""
    strides: list[Any] = [0] * len(shape)
    step: Any = 1
    numbers = [_hint(stride) for stride in like.stride()]
    for axis in sorted(range(len(shape)), key=lambda axis: (numbers[axis], -axis)):
        if numbers[axis]:
            strides[axis] = step
            step = step * shape[axis]
    return strides


def _hint(size: Any) -> int:
    """A number to order symbolic sizes by."""
    return int(size) if isinstance(size, int) else int(size.node.hint or 0)
