"""The table of rules, and what all of them use.

A rule is a function of `(coupling, node)` that returns the labels of the node's output: one entry
per dimension, None where nothing can be removed; a list of those for several outputs. It raises
`UnknownFormError` for a form of its operator that it does not cover.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch.fx import Node

from nnopt_cli.graph.coupling import Coupling, is_tensor, sizes

Rule = Callable[[Coupling, Node], Any]
Table = dict[str, Rule]
R = TypeVar("R", bound=Rule)


class UnknownFormError(Exception):
    """A form of an operator that its rule does not cover; the message says which."""


def register(table: Table, *names: str) -> Callable[[R], R]:
    """Put a rule into `table` for the operators called `names`."""

    def put(rule: R) -> R:
        table.update(dict.fromkeys(names, rule))
        return rule

    return put


def operator_name(node: Node) -> str:
    """`aten.conv2d.default` → `conv2d`; `operator.getitem` → `getitem`."""
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        return target._schema.name.removeprefix("aten::")
    return getattr(target, "__name__", str(target))


def argument(node: Node, index: int, name: str, default: Any = None) -> Any:
    """An operator's argument, given by position or by name."""
    return node.args[index] if len(node.args) > index else node.kwargs.get(name, default)


def axes(given: int | Sequence[int] | None, rank: int) -> list[int]:
    """A `dim` argument as non-negative axes; None or an empty list means all."""
    if given is None or (not isinstance(given, int) and not len(given)):
        return list(range(rank))
    return [axis % rank for axis in ([given] if isinstance(given, int) else given)]


def is_one(size: Any) -> bool:
    """Whether a size is the number 1 (and not a symbol that may be 1)."""
    return isinstance(size, int) and size == 1


def broadcast(coupling: Coupling, inputs: Sequence[Node], shape: Sequence[Any]) -> list[Any]:
    """Labels of `shape` when `inputs` broadcast to it: aligned dimensions are the same channels."""
    out = []
    for back in range(len(shape), 0, -1):
        dims = []
        for node in inputs:
            size = sizes(node)
            if len(size) < back:
                continue
            dim = coupling.value(node)[-back]
            if is_one(size[-back]) and not is_one(shape[-back]):
                coupling.labels.freeze(dim)  # one entry serves all channels
            else:
                dims.append(dim)
        out.append(coupling.labels.equate(*dims) if dims else None)
    return out


def tensors(node: Node) -> list[Node]:
    """The node's inputs that are single tensors."""
    return [source for source in node.all_input_nodes if is_tensor(source)]
