"""Recurrent nets: a hidden unit is one row of every gate, and one column of the recurrent weights."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch.fx import Node

from nnopt_cli.graph.coupling import Coupling, is_tensor
from nnopt_cli.graph.labels import Array, Dim, Value
from nnopt_cli.graph.rules.base import Table, UnknownFormError, operator_name, register

RULES: Table = {}

_GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


@register(RULES, *_GATES)
def recurrent(coupling: Coupling, node: Node) -> Any:
    """All layers and directions share one hidden size, as their states are one tensor."""
    name = operator_name(node)
    source, first, parameters, biased, layers, _, _, both = node.args[:8]
    states: Any = first if isinstance(first, list | tuple) else [first]
    directions, per = 2 if both else 1, 4 if biased else 2
    if not isinstance(parameters, list | tuple):
        raise UnknownFormError("packed sequences")
    projected = len(parameters) == layers * directions * (per + 1)  # type: ignore[operator]
    per += projected
    equate = coupling.labels.equate
    x = coupling.value(source)
    current: Dim = x[-1]
    hidden: list[Dim] = []
    inside: list[Dim] = []
    cells = [[coupling.value(p) for p in parameters[at : at + per]] for at in range(0, len(parameters), per)]
    for layer in range(layers):  # type: ignore[arg-type]
        outputs: list[Array] = []
        for cell in cells[layer * directions : (layer + 1) * directions]:
            equate(cell[0][1], current)
            units, out = _cell(coupling, cell, _GATES[name], projected)
            outputs.append(out)
            hidden.append(out)
            inside.append(units)
        current = np.concatenate(outputs)
    # the states of all layers and directions are one tensor: h as wide as the output, c as the cells
    kinds = (hidden, inside)[: len(states)]
    ends = [equate(coupling.value(s)[-1], *dims) for s, dims in zip(states, kinds, strict=True)]
    return [[*x[:-1], current], *([None, None, end] for end in ends)]


@register(RULES, *(f"{name}_cell" for name in _GATES))
def single_step(coupling: Coupling, node: Node) -> Any:
    """One step of one layer, as `nn.LSTMCell` and its like give it."""
    name = operator_name(node)
    source, first, *rest = node.args
    states: Any = first if isinstance(first, list | tuple) else [first]
    cell = [coupling.value(parameter) for parameter in rest if is_tensor(parameter)]
    x = coupling.value(source)
    units, _ = _cell(coupling, cell, _GATES[name.removesuffix("_cell")])
    coupling.labels.equate(cell[0][1], x[-1])
    for state in states:
        coupling.labels.equate(coupling.value(state)[-1], units)
    out = [*x[:-1], units]
    return [list(out) for _ in states] if name == "lstm_cell" else out


def _cell(coupling: Coupling, cell: list[Value], gates: int, projected: bool = False) -> tuple[Array, Array]:
    """One layer in one direction: the labels of its units, and of its outputs.

    Weights: gates*hidden x in, gates*hidden x out, perhaps biases, and out x hidden if it is projected.
    """
    gated, last = (cell[:-1], cell[-1]) if projected else (cell, None)
    rows = []
    for value in gated:
        if value[0] is None:
            raise UnknownFormError("weights that are not parameters")
        rows.append(coupling.labels.tie_rows(value[0].reshape(gates, -1).T))
    outputs = rows[0] if last is None else last[0]
    if outputs is None:
        raise UnknownFormError("weights that are not parameters")
    coupling.labels.equate(*rows, *(last[1:] if last is not None else ()))
    coupling.labels.equate(gated[1][1], outputs)
    return rows[0], outputs
