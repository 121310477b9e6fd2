"""Channel coupling: which indices of which parameter dimensions are the same channel.

One walk over the graph in order; the rule of each operator (see `rules`) says which labels of its
inputs are equal. What no rule covers is frozen and reported: less is pruned, nothing breaks.
Pruning cuts by these labels, alignment permutes by them, costs are counted by them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch.fx import Node

from nnopt_cli.graph.labels import Array, Dim, Labels, Value
from nnopt_cli.graph.parts import idle

if TYPE_CHECKING:
    from torch.export import ExportedProgram


class Frozen(NamedTuple):
    """A place where an operator kept channels from being removed."""

    node: str
    operator: str
    why: str


@dataclass
class Coupling:
    """The labels of every value of a graph.

    Attributes:
        labels: where labels and their equalities are recorded.
        values: node -> labels per dimension (a list of those for operators with several outputs).
        parameters: parameter, buffer or constant name -> its placeholder.
        frozen: operators without a usable rule, in order.
        heads: label arrays (one label per head) of dimensions that were read as attention heads.
        roots: label -> its class, once solved; class 0 is frozen.
    """

    labels: Labels = field(default_factory=Labels)
    values: dict[Node, Any] = field(default_factory=dict)
    parameters: dict[str, Node] = field(default_factory=dict)
    frozen: list[Frozen] = field(default_factory=list)
    heads: list[Array] = field(default_factory=list)
    roots: Array = field(default_factory=lambda: np.zeros(1, np.int64))

    def value(self, node: Any) -> Value:
        """Labels per dimension of a node with one output."""
        out: Value = self.values[node]
        return out

    def classes(self, dim: Dim) -> Array | None:
        """The class of every index of `dim`."""
        return None if dim is None else self.roots[dim]

    def labelled(self, node: Node) -> bool:
        """Whether anything could be removed along some dimension of `node`."""
        return bool(_dims(self.values.get(node)))

    def freeze(self, node: Node) -> None:
        """Nothing may be removed along any dimension of `node`."""
        for dim in _dims(self.values.get(node)):
            self.labels.freeze(dim)


def analyse(program: ExportedProgram) -> Coupling:
    """Find the coupled channels of an exported program. Costs time linear in the graph's size.

    Inputs and outputs of the program are frozen, which protects a classifier's classes.
    """
    from nnopt_cli.graph.rules import apply

    coupling = Coupling()
    targets = {spec.arg.name: spec.target for spec in program.graph_signature.input_specs}
    tensors = {**program.constants, **program.state_dict}
    tied: dict[object, Value] = {}
    unused = idle(program.graph)
    for node in program.graph.nodes:
        if node.op == "placeholder" and is_tensor(node):
            name = targets[node.name]
            _enter(coupling, node, name)
            if isinstance(tensor := tensors.get(name or ""), torch.Tensor):
                coupling.values[node] = tied.setdefault(identity(tensor), coupling.value(node))
        elif node.op == "call_function" and node not in unused:
            apply(coupling, node)
        elif node.op == "output":
            for result in node.all_input_nodes:
                coupling.freeze(result)
    coupling.roots = coupling.labels.solve()
    return coupling


def _enter(coupling: Coupling, node: Node, target: str | None) -> None:
    if target is None:  # an input of the program
        coupling.values[node] = [None] * node.meta["val"].dim()
    else:
        coupling.parameters[target] = node
        coupling.values[node] = [coupling.labels.fresh(int(size)) for size in node.meta["val"].shape]


def identity(tensor: torch.Tensor) -> object:
    """Equal for tensors that are one and the same memory, which is what tied parameters are."""
    if not tensor.numel():
        return id(tensor)
    place = tensor.untyped_storage().data_ptr(), tensor.storage_offset()
    return (*place, tuple(tensor.shape), tensor.stride(), tensor.dtype)


def is_tensor(thing: Any) -> bool:
    """Whether `thing` is a node with one tensor as its value."""
    return isinstance(thing, Node) and isinstance(thing.meta.get("val"), torch.Tensor)


def sizes(node: Any) -> list[Any]:
    """The sizes of a node's value: ints, or `torch.SymInt`s for dynamic dimensions."""
    return list(node.meta["val"].shape)


def _dims(value: Any) -> list[Dim]:
    if value is None:
        return []
    if value and isinstance(value[0], list):
        return [dim for part in value for dim in _dims(part)]
    return [dim for dim in value if isinstance(dim, np.ndarray)]
