"""Reshapes as an alignment of factors: which input dimensions merge, which output dimensions split.

A reshape keeps the row-major order, so its input and output dimensions fall into blocks of equal
product. Inside a block the dimensions are merged into one flat dimension and split again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

_PRIME = 7919  # stands for a symbolic size, such as the batch, when two products are compared


class Block(NamedTuple):
    """Input dimensions `[i0, i1)` become output dimensions `[o0, o1)`."""

    i0: int
    i1: int
    o0: int
    o1: int


def align(source: Sequence[Any], target: Sequence[Any]) -> list[Block]:
    """The blocks of a reshape from `source` to `target`; sizes are ints or `torch.SymInt`s.

    Raises ValueError where the products never meet.
    """
    source, target = [_expression(s) for s in source], [_expression(s) for s in target]
    blocks: list[Block] = []
    i = o = 0
    while i < len(source) or o < len(target):
        i0, o0, left, right = i, o, 1, 1
        if i < len(source):
            left, i = left * source[i], i + 1
        if o < len(target):
            right, o = right * target[o], o + 1
        while left != right:
            if i < len(source) and (o >= len(target) or _smaller(left, right)):
                left, i = left * source[i], i + 1
            elif o < len(target):
                right, o = right * target[o], o + 1
            else:
                raise ValueError("sizes that do not line up")
        blocks.append(Block(i0, i, o0, o))
    return blocks


def _expression(size: Any) -> Any:
    return size.node.expr if hasattr(size, "node") else size


def _smaller(left: Any, right: Any) -> bool:
    return _number(left) < _number(right)


def _number(expression: Any) -> float:
    if isinstance(expression, int):
        return expression
    return float(expression.subs(dict.fromkeys(expression.free_symbols, _PRIME)))
