"""Normalisation: per-channel parameters belong to the channels that they scale."""

from __future__ import annotations

from collections.abc import Sequence

from torch.fx import Node

from nnopt_cli.graph.coupling import Coupling, is_tensor
from nnopt_cli.graph.labels import Value
from nnopt_cli.graph.rules.base import Table, argument, operator_name, register

RULES: Table = {}


def _per_channel(coupling: Coupling, x: Value, parameters: Sequence[object], at: int) -> None:
    for parameter in parameters:
        if is_tensor(parameter):
            x[at] = coupling.labels.equate(x[at], coupling.value(parameter)[0])


@register(RULES, "batch_norm", "instance_norm", "_native_batch_norm_legit_no_training")
def batch_norm(coupling: Coupling, node: Node) -> Value:
    """Weight, bias, running mean and variance per channel (axis 1)."""
    x = list(coupling.value(node.args[0]))
    _per_channel(coupling, x, node.args[1:5], at=1)
    return x


@register(RULES, "layer_norm", "rms_norm")
def layer_norm(coupling: Coupling, node: Node) -> Value:
    """Over the last dimensions: a statistic over the channels that stay."""
    x = list(coupling.value(node.args[0]))
    bias = argument(node, 3, "bias") if operator_name(node) == "layer_norm" else None
    for parameter in (argument(node, 2, "weight"), bias):
        if is_tensor(parameter):
            value = coupling.value(parameter)
            for back in range(1, len(value) + 1):
                x[-back] = coupling.labels.equate(x[-back], value[-back])
    return x


@register(RULES, "group_norm")
def group_norm(coupling: Coupling, node: Node) -> Value:
    """Either whole groups go, or the same places of every group: their statistic is one over what stays."""
    x = list(coupling.value(node.args[0]))
    groups = argument(node, 1, "num_groups")
    if x[1] is not None and 1 < groups < len(x[1]):
        grid = x[1].reshape(groups, -1)
        coupling.labels.offer([grid], [grid.T])
    _per_channel(coupling, x, (argument(node, 2, "weight"), argument(node, 3, "bias")), at=1)
    return x


@register(RULES, "_weight_norm")
def weight_norm(coupling: Coupling, node: Node) -> Value:
    """`v * g / |v|`, one magnitude g per index of axis `dim`."""
    direction, gain = coupling.value(node.args[0]), coupling.value(node.args[1])
    at = argument(node, 2, "dim", 0)
    out = list(direction)
    for axis, dim in enumerate(gain):
        if axis == at:
            out[axis] = coupling.labels.equate(dim, direction[axis])
        else:
            coupling.labels.freeze(dim)
    return out
