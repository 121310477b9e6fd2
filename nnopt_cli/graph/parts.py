"""Graphs inside graphs, and what of a graph counts.

`torch.no_grad()` and autocast regions of a network become operators that run a graph of their own.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.fx import Graph, GraphModule, Node


def part_of(node: Node) -> tuple[GraphModule, Sequence[Node]] | None:
    """The graph that an operator runs, and the operands that it runs it on; None for other operators."""
    if not isinstance(node.target, torch._ops.HigherOrderOperator):
        return None
    if not str(node.target).startswith("wrap_with_"):
        return None
    at = next(i for i, arg in enumerate(node.args) if isinstance(arg, Node) and arg.op == "get_attr")
    part = getattr(node.graph.owning_module, str(node.args[at].target))  # type: ignore[union-attr]
    return part, node.args[at + 1 :]  # type: ignore[return-value]


def idle(graph: Graph) -> set[Node]:
    """Operators whose result nothing uses: exports keep those that the network's code asked a shape of."""
    out: set[Node] = set()
    for node in reversed(graph.nodes):
        if node.op == "call_function" and not node.is_impure() and all(user in out for user in node.users):
            out.add(node)
    return out
