"""One rule per ATen operator: what it says about the channels of its inputs and its output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import GraphModule, Node

from nnopt_cli.graph.coupling import Coupling, Frozen
from nnopt_cli.graph.parts import idle, part_of
from nnopt_cli.graph.rules import contract, elementwise, layout, lookup, normalise, recurrent, reshape, space
from nnopt_cli.graph.rules.base import Rule, Table, UnknownFormError, operator_name

RULES: Table = {
    **elementwise.RULES,
    **contract.RULES,
    **normalise.RULES,
    **space.RULES,
    **layout.RULES,
    **lookup.RULES,
    **reshape.RULES,
    **recurrent.RULES,
}


def apply(coupling: Coupling, node: Node) -> None:
    """Record what `node` says; where no rule fits, freeze what flows in and note why."""
    result = node.meta.get("val")
    if not isinstance(result, torch.Tensor | tuple | list):
        return  # a size or another number
    if (inner := part_of(node)) is not None:
        coupling.values[node] = _within(coupling, *inner)
        return
    rule = rule_for(node)
    why = "no rule"
    if rule is not None:
        try:
            value = rule(coupling, node)
            _check(value, result)
            coupling.values[node] = value
            return
        except UnknownFormError as stop:
            why = str(stop)
        except (ValueError, IndexError, TypeError, KeyError, AttributeError) as error:
            why = f"a form that its rule does not cover ({error})"
    if any(coupling.labelled(source) for source in node.all_input_nodes):
        coupling.frozen.append(Frozen(node.name, operator_name(node), why))
    for source in node.all_input_nodes:
        coupling.freeze(source)
    coupling.values[node] = _unlabelled(result)


def _within(coupling: Coupling, part: GraphModule, operands: Sequence[Node]) -> Any:
    """The same for all operators of a part."""
    entries = [node for node in part.graph.nodes if node.op == "placeholder"]
    for entry, operand in zip(entries, operands, strict=True):
        coupling.values[entry] = coupling.values.get(operand)
    unused = idle(part.graph)
    for node in part.graph.nodes:
        if node.op == "call_function" and node not in unused:
            apply(coupling, node)
    results = next(iter(reversed(part.graph.nodes))).args[0]
    if isinstance(results, Node):
        return coupling.values[results]
    return [coupling.values.get(result, []) for result in results]


def rule_for(node: Node) -> Rule | None:
    """The rule of a node's operator: its own, or the one for all that work on each element alone."""
    target = node.target
    name = operator_name(node)
    if name in RULES:
        return RULES[name]
    if isinstance(target, torch._ops.OpOverload):
        if torch.Tag.pointwise in target.tags:
            return elementwise.pointwise
        if name.endswith("_") and name[:-1] in RULES:  # in place
            return RULES[name[:-1]]
    return None


def _unlabelled(result: Any) -> Any:
    if isinstance(result, torch.Tensor):
        return [None] * result.dim()
    return [_unlabelled(part) if isinstance(part, torch.Tensor) else [] for part in result]


def _check(value: Any, result: Any) -> None:
    if not isinstance(result, torch.Tensor):
        for part, tensor in zip(value, result, strict=True):
            if isinstance(tensor, torch.Tensor):
                _check(part, tensor)
        return
    if len(value) != result.dim():
        raise ValueError(f"{len(value)} dimensions, not {result.dim()}")
    for dim, size in zip(value, result.shape, strict=True):
        if dim is not None and isinstance(size, int) and len(dim) != size:
            raise ValueError(f"{len(dim)} channels, not {size}")
