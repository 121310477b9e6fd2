"""Contractions: what is summed over on both sides is the same set of channels."""

from __future__ import annotations

import numpy as np
from torch.fx import Node

from nnopt_cli.graph.coupling import Coupling, is_tensor, sizes
from nnopt_cli.graph.labels import FROZEN, Array, Dim, Value
from nnopt_cli.graph.rules.base import (
    Table,
    UnknownFormError,
    argument,
    broadcast,
    is_one,
    operator_name,
    register,
    tensors,
)

RULES: Table = {}


@register(RULES, "linear")
def linear(coupling: Coupling, node: Node) -> Value:
    """`y = x W' + b`, W: out x in."""
    x, weight = coupling.value(node.args[0]), coupling.value(node.args[1])
    coupling.labels.equate(x[-1], weight[1])
    bias = argument(node, 2, "bias")
    out = coupling.labels.equate(weight[0], coupling.value(bias)[0]) if is_tensor(bias) else weight[0]
    return [*x[:-1], out]


@register(RULES, "matmul", "bmm", "mm", "dot", "mv")
def matmul(coupling: Coupling, node: Node) -> Value:
    """Batched product; vectors as in `torch.matmul`."""
    a, b = node.args[:2]
    left, right = coupling.value(a), coupling.value(b)
    coupling.labels.equate(left[-1], right[-2] if len(right) > 1 else right[0])
    lead = _batch(coupling, (left[:-2], sizes(a)[:-2]), (right[:-2], sizes(b)[:-2]))
    return [*lead, *left[-2:-1], *(right[-1:] if len(right) > 1 else [])]


def _batch(coupling: Coupling, *sides: tuple[Value, list[object]]) -> Value:
    """Broadcast the batch dimensions of two operands."""
    out: Value = []
    for back in range(max(len(value) for value, _ in sides), 0, -1):
        met = [(value[-back], size[-back]) for value, size in sides if len(value) >= back]
        wide = [dim for dim, size in met if not is_one(size)]
        for dim, size in met:
            if is_one(size) and wide:
                coupling.labels.freeze(dim)
        out.append(coupling.labels.equate(*(wide or [dim for dim, _ in met])))
    return out


@register(RULES, "addmm", "addbmm", "baddbmm")
def addmm(coupling: Coupling, node: Node) -> Value:
    """`c + a b`, c broadcast."""
    extra, a, b = node.args[:3]
    left, right = coupling.value(a), coupling.value(b)
    coupling.labels.equate(left[-1], right[-2])
    lead = [coupling.labels.equate(left[0], right[0])] if len(left) == 3 else []
    out: Value = [*lead, left[-2], right[-1]]
    if operator_name(node) == "addbmm":
        raise UnknownFormError("a sum over the batch")
    value, size, shape = coupling.value(extra), sizes(extra), sizes(node)
    for back in range(1, len(value) + 1):
        if is_one(size[-back]) and not is_one(shape[-back]):
            coupling.labels.freeze(value[-back])
        else:
            out[-back] = coupling.labels.equate(out[-back], value[-back])
    return out


@register(RULES, "vdot", "inner")
def inner(coupling: Coupling, node: Node) -> Value:
    """Both last dimensions are summed over."""
    left, right = coupling.value(node.args[0]), coupling.value(node.args[1])
    coupling.labels.equate(left[-1], right[-1])
    return [*left[:-1], *right[:-1]]


@register(RULES, "cosine_similarity")
def cosine(coupling: Coupling, node: Node) -> Value:
    """A dot product of unit vectors along `dim`; operands broadcast."""
    pair = tensors(node)
    rank = max(len(sizes(operand)) for operand in pair)
    at = argument(node, 2, "dim", 1) % rank
    shape = list(sizes(node))
    widths = [sizes(operand)[at - rank] for operand in pair if len(sizes(operand)) >= rank - at]
    shape.insert(at, next((width for width in widths if not is_one(width)), 1))
    out = broadcast(coupling, pair, shape)
    return [dim for axis, dim in enumerate(out) if axis != at]


@register(RULES, "einsum")
def einsum(coupling: Coupling, node: Node) -> Value:
    """The same letter is the same channel."""
    terms, result = einsum_terms(node)
    seen: dict[str, Dim] = {}
    for term, operand in zip(terms, node.args[1], strict=True):  # type: ignore[arg-type]
        for letter, dim in zip(term, coupling.value(operand), strict=True):
            seen[letter] = coupling.labels.equate(seen[letter], dim) if letter in seen else dim
    return [seen[letter] for letter in result]


def einsum_terms(node: Node) -> tuple[list[str], str]:
    """The operands' letters and the result's. Raises UnknownFormError for ellipses."""
    equation = str(node.args[0]).replace(" ", "")
    if "." in equation:
        raise UnknownFormError("an einsum with an ellipsis")
    left, arrow, right = equation.partition("->")
    if not arrow:
        letters = left.replace(",", "")
        right = "".join(sorted(letter for letter in set(letters) if letters.count(letter) == 1))
    return left.split(","), right


@register(RULES, "scaled_dot_product_attention")
def attention(coupling: Coupling, node: Node) -> Value:
    """`softmax(q k' * scale + mask) v`; with grouped queries each key head serves several query heads."""
    q, k, v = (coupling.value(source) for source in node.args[:3])
    equate = coupling.labels.equate
    equate(q[-1], k[-1])
    equate(k[-2], v[-2])
    lead: Value = []
    for axis, (dim_q, dim_k, dim_v) in enumerate(zip(q[:-2], k[:-2], v[:-2], strict=True)):
        keys = equate(dim_k, dim_v)
        if argument(node, 7, "enable_gqa", False) and axis == len(q) - 3:
            size_q, size_k = sizes(node.args[0])[axis], sizes(node.args[1])[axis]
            keys = None if keys is None else np.repeat(keys, size_q // size_k)
        lead.append(equate(dim_q, keys))
    mask = argument(node, 3, "attn_mask")
    if is_tensor(mask):
        shape = [*sizes(node)[:-1], sizes(node.args[1])[-2]]
        target = [*lead, q[-2], k[-2]]
        for back, (dim, size) in enumerate(
            zip(coupling.value(mask)[::-1], sizes(mask)[::-1], strict=True), 1
        ):
            if is_one(size) and not is_one(shape[-back]):
                coupling.labels.freeze(dim)
            else:
                equate(dim, target[-back])
    return [*lead, q[-2], v[-1]]


_CONVOLUTIONS = ("conv1d", "conv2d", "conv3d", "convolution")
_TRANSPOSED = ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")


@register(RULES, *_CONVOLUTIONS, *_TRANSPOSED)
def convolution(coupling: Coupling, node: Node) -> Value:
    """Weight: out x in/groups x kernel (transposed: in x out/groups x kernel).

    The window mixes the spatial dimensions, which can be channels of another operator, so these stay.
    """
    labels = coupling.labels
    x, weight = coupling.value(node.args[0]), coupling.value(node.args[1])
    groups, transposed = convolution_form(node)
    for dim in (*weight[2:], *x[2:]):
        labels.freeze(dim)
    inner, outer = (weight[0], weight[1]) if transposed else (weight[1], weight[0])
    if groups == 1:
        labels.equate(x[1], inner)
        out = outer
    else:
        out = _grouped(coupling, groups, x, node.args[1], transposed)  # type: ignore[arg-type]
    bias = argument(node, 2, "bias")
    if is_tensor(bias):
        out = labels.equate(out, coupling.value(bias)[0])
    return [x[0], out, *[None] * (len(x) - 2)]


def _grouped(coupling: Coupling, groups: int, x: Value, kernel: Node, transposed: bool) -> Dim:
    """Either whole groups go, with all their inputs and outputs, or the same places of every group."""
    labels = coupling.labels
    channels, (whole, part, *_) = x[1], coupling.value(kernel)
    places = sizes(kernel)[1]  # in a group: inputs, or outputs of a transposed convolution
    depthwise = is_one(places)
    if channels is None or whole is None or (part is None and not depthwise):
        for dim in (channels, whole, part):
            labels.freeze(dim)
        return None
    out = labels.fresh(groups * places) if transposed else whole
    if transposed:
        labels.equate(whole, channels)
    ins, outs = channels.reshape(groups, -1), out.reshape(groups, -1)
    rows = np.concatenate([ins, outs], axis=1)
    if part is None or depthwise:  # a place is all of its group
        labels.freeze(part)
        labels.tie_rows(rows)
    else:
        numbered, other = (outs, ins) if transposed else (ins, outs)
        by_place = np.concatenate([numbered.T, part[:, None]], axis=1)
        labels.offer([rows, _as_frozen(part)], [by_place, other.T])
    return out


def _as_frozen(dim: Array) -> Array:
    return np.stack([dim, np.full_like(dim, FROZEN)], axis=1)


def convolution_form(node: Node) -> tuple[int, bool]:
    """Number of groups, and whether it is transposed."""
    name = operator_name(node)
    if name == "convolution":
        return int(argument(node, 8, "groups", 1)), bool(argument(node, 6, "transposed", False))
    transposed = name in _TRANSPOSED
    return int(argument(node, 6, "groups", 1)), transposed
