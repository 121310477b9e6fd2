"""Operators on the spatial dimensions behind the channels; padding; pixel shuffles."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch.fx import Node

from nnopt_cli.graph.coupling import Coupling, sizes
from nnopt_cli.graph.labels import Value
from nnopt_cli.graph.rules.base import Table, argument, operator_name, register

RULES: Table = {}

_POOLS = ("max_pool", "avg_pool", "adaptive_avg_pool", "adaptive_max_pool", "lp_pool")
_RESIZES = (
    "upsample_nearest",
    "upsample_linear",
    "upsample_bilinear",
    "upsample_bicubic",
    "upsample_trilinear",
)
_PADS = ("reflection_pad", "replication_pad")


@register(RULES, *(f"{stem}{n}d" for stem in (*_POOLS, *_RESIZES, *_PADS) for n in (1, 2, 3)))
@register(RULES, "_adaptive_avg_pool2d", "_upsample_nearest_exact1d", "_upsample_nearest_exact2d")
@register(RULES, *(f"max_pool{n}d_with_indices" for n in (1, 2, 3)))
def spatial(coupling: Coupling, node: Node) -> Any:
    """Channels pass through; the last one, two or three dimensions are spatial."""
    x = coupling.value(node.args[0])
    rank = next(int(letter) for letter in operator_name(node) if letter in "123")
    for dim in x[-rank:]:
        coupling.labels.freeze(dim)
    out = [*x[:-rank], *[None] * rank]
    result = node.meta["val"]
    return out if isinstance(result, torch.Tensor) else [out for _ in result]


@register(RULES, "max_unpool2d", "max_unpool3d")
def unpool(coupling: Coupling, node: Node) -> Value:
    """Each channel has its own places to go to, so channels of values and places are the same."""
    x, places = coupling.value(node.args[0]), coupling.value(node.args[1])
    rank = 2 if operator_name(node).endswith("2d") else 3
    for dim in (*x[-rank:], *places[-rank:]):
        coupling.labels.freeze(dim)
    lead = zip(x[:-rank], places[:-rank], strict=True)
    return [*(coupling.labels.equate(a, b) for a, b in lead), *[None] * rank]


@register(RULES, "im2col")
def im2col(coupling: Coupling, node: Node) -> Value:
    """Every channel becomes the pixels of its window, side by side."""
    x = coupling.value(node.args[0])
    window: Any = argument(node, 1, "kernel_size")
    for dim in x[-2:]:
        coupling.labels.freeze(dim)
    return [*x[:-3], None if x[-3] is None else np.repeat(x[-3], math.prod(window)), None]


@register(RULES, "col2im")
def col2im(coupling: Coupling, node: Node) -> Value:
    """The pixels of a window become one channel again."""
    x = coupling.value(node.args[0])
    window: Any = argument(node, 2, "kernel_size")
    coupling.labels.freeze(x[-1])
    rows = None if x[-2] is None else coupling.labels.tie_rows(x[-2].reshape(-1, math.prod(window)))
    return [*x[:-2], rows, None, None]


@register(RULES, "pad", "constant_pad_nd")
def pad(coupling: Coupling, node: Node) -> Value:
    """A constant beside channels (He et al.'s option A shortcut pads them) may go with what it meets."""
    x = list(coupling.value(node.args[0]))
    amounts: Any = node.args[1]
    constant = operator_name(node) != "pad" or argument(node, 2, "mode", "constant") == "constant"
    for i, (before, after) in enumerate(zip(amounts[::2], amounts[1::2], strict=True)):
        axis = len(x) - 1 - i
        dim = x[axis]
        if dim is None or (before == 0 and after == 0):
            continue
        whole = isinstance(before, int) and isinstance(after, int) and min(before, after) >= 0
        if constant and whole and isinstance(sizes(node)[axis], int):
            x[axis] = np.concatenate([coupling.labels.fresh(before), dim, coupling.labels.fresh(after)])
        else:
            coupling.labels.freeze(dim)
            x[axis] = None
    return x


@register(RULES, "channel_shuffle")
def channel_shuffle(coupling: Coupling, node: Node) -> Value:
    """Axis 1 as groups x rest, transposed: whole columns go, so that all groups stay equally wide."""
    x = list(coupling.value(node.args[0]))
    groups = int(argument(node, 1, "groups"))
    if x[1] is not None:
        columns = coupling.labels.tie_rows(x[1].reshape(groups, -1).T)
        x[1] = np.repeat(columns, groups)
    return x


@register(RULES, "pixel_shuffle")
def pixel_shuffle(coupling: Coupling, node: Node) -> Value:
    """r * r neighbouring channels become one."""
    x = coupling.value(node.args[0])
    square = int(argument(node, 1, "upscale_factor")) ** 2
    out = None if x[-3] is None else coupling.labels.tie_rows(x[-3].reshape(-1, square))
    return [*x[:-3], out, None, None]


@register(RULES, "pixel_unshuffle")
def pixel_unshuffle(coupling: Coupling, node: Node) -> Value:
    """Each channel becomes r * r neighbouring ones."""
    x = coupling.value(node.args[0])
    square = int(argument(node, 1, "downscale_factor")) ** 2
    return [*x[:-3], None if x[-3] is None else np.repeat(x[-3], square), None, None]
