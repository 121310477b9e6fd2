"""Which axes of a split become attention heads: the batch axes of a product further down."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import Node

from nnopt_cli.graph.coupling import is_tensor, sizes
from nnopt_cli.graph.shapes import align

_PRODUCTS = {"scaled_dot_product_attention", "matmul", "bmm", "baddbmm", "einsum"}
_REACH = 64  # users looked at: attention follows its split closely

Axes = Sequence[int | None]  # for each axis of a value, the axis of the split that it comes from


def head_axes(split: Node) -> set[int]:
    """The axes of `split`'s output that become batch axes of a matrix product or attention."""
    found: set[int] = set()
    queue: deque[tuple[Node, Axes]] = deque([(split, range(len(sizes(split))))])
    looked = 0
    while queue and looked < _REACH:
        node, axes = queue.popleft()
        for user in node.users:
            looked += 1
            name = _name(user)
            if name in _PRODUCTS:
                found.update(_batch_axes(user, name, node, axes))
            elif (moved := _follow(user, name, node, axes)) is not None:
                queue.append((user, moved))
    return found


def _name(node: Node) -> str:
    from nnopt_cli.graph.rules.base import operator_name

    return operator_name(node) if node.op == "call_function" else node.op


def _batch_axes(user: Node, name: str, node: Node, axes: Axes) -> set[int]:
    if name != "einsum":
        return {axis for axis in axes[:-2] if axis is not None}
    equation = str(user.args[0]).replace(" ", "")
    left, _, right = equation.partition("->")
    terms, operands = left.split(","), user.args[1]
    shared = {letter for letter in right if all(letter in term for term in terms)}
    mine = [t for t, operand in zip(terms, operands, strict=True) if operand is node]  # type: ignore[arg-type]
    if not mine or len(mine[0]) != len(axes):
        return set()
    return {axis for axis, letter in zip(axes, mine[0], strict=True) if axis is not None and letter in shared}


def _follow(user: Node, name: str, node: Node, axes: Axes) -> Axes | None:
    """Where the axes of `node` are in `user`, or None where the trail ends."""
    result = user.meta.get("val")
    rank = len(axes)
    out = list(axes)
    if name == "permute":
        order: Any = user.args[1]
        return [out[axis] for axis in order]
    if name in ("transpose", "swapaxes"):
        a, b = user.args[1:3]
        out[a], out[b] = out[b], out[a]  # type: ignore[index]
        return out
    if name in ("unbind", "select"):
        at: Any = user.args[1] if len(user.args) > 1 else 0
        return [axis for i, axis in enumerate(out) if i != at % rank]
    if name == "unsqueeze":
        at = user.args[1]
        out.insert(at % (rank + 1), None)
        return out
    if name in ("view", "reshape", "squeeze", "flatten", "_unsafe_view") and is_tensor(user):
        return _through_reshape(sizes(node), sizes(user), out)
    if name == "expand" and is_tensor(user):
        return [*[None] * (len(sizes(user)) - rank), *out]
    if isinstance(result, tuple | list):
        return out
    if isinstance(result, torch.Tensor) and result.dim() == rank:
        return out  # element by element, a norm, a concatenation: the axes keep their places
    return None


def _through_reshape(source: list[Any], target: list[Any], axes: list[int | None]) -> Axes | None:
    try:
        blocks = align(source, target)
    except ValueError:
        return None
    out: list[int | None] = []
    for i0, i1, o0, o1 in blocks:
        known = [axes[i] for i in range(i0, i1) if source[i] != 1]
        wide = [o for o in range(o0, o1) if target[o] != 1]
        if len(known) == len(wide):
            moved = iter(known)
            out.extend(next(moved) if o in wide else None for o in range(o0, o1))
        elif len(wide) == 1:  # merged, e.g. batch * heads: the innermost known one names it
            named = [axis for axis in known if axis is not None]
            out.extend((named[-1] if named else None) if o in wide else None for o in range(o0, o1))
        elif len(known) == 1:  # split again, e.g. batch * heads into batch, heads: the inner factor
            out.extend(known[0] if o == wide[-1] else None for o in range(o0, o1))
        else:
            out.extend([None] * (o1 - o0))
    return out
