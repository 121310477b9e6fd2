"""Recurrent nets: a hidden unit is one row of every gate, and one column of the recurrent weights."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch.fx import Node

from nnopt_cli.graph.coupling import Coupling, is_tensor
from nnopt_cli.graph.labels import Array, Value
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
    if not isinstance(parameters, list | tuple) or len(parameters) != layers * directions * per:  # type: ignore[operator]
        raise UnknownFormError("packed sequences or projections")
    equate = coupling.labels.equate
    x = coupling.value(source)
    current, hidden = x[-1], None
    cells = [[coupling.value(p) for p in parameters[at : at + per]] for at in range(0, len(parameters), per)]
    for layer in range(layers):  # type: ignore[arg-type]
        outputs: list[Array] = []
        for cell in cells[layer * directions : (layer + 1) * directions]:
            units = _cell(coupling, cell, _GATES[name])
            equate(cell[0][1], current)
            outputs.append(units)
            hidden = units if hidden is None else equate(hidden, units)
        current = np.concatenate(outputs)
    for state in states:
        equate(coupling.value(state)[-1], hidden)
    ends = [[None, None, hidden] for _ in states]
    return [[*x[:-1], current], *ends]


@register(RULES, *(f"{name}_cell" for name in _GATES))
def single_step(coupling: Coupling, node: Node) -> Any:
    """One step of one layer, as `nn.LSTMCell` and its like give it."""
    name = operator_name(node)
    source, first, *rest = node.args
    states: Any = first if isinstance(first, list | tuple) else [first]
    cell = [coupling.value(parameter) for parameter in rest if is_tensor(parameter)]
    x = coupling.value(source)
    units = _cell(coupling, cell, _GATES[name.removesuffix("_cell")])
    coupling.labels.equate(cell[0][1], x[-1])
    for state in states:
        coupling.labels.equate(coupling.value(state)[-1], units)
    out = [*x[:-1], units]
    return [list(out) for _ in states] if name == "lstm_cell" else out


def _cell(coupling: Coupling, cell: list[Value], gates: int) -> Array:
    """One layer in one direction: weights `gates*hidden x in`, `gates*hidden x hidden`, and biases."""
    rows = []
    for value in cell:
        assert value[0] is not None
        rows.append(coupling.labels.tie_rows(value[0].reshape(gates, -1).T))
    coupling.labels.equate(*rows, cell[1][1])
    return rows[0]
