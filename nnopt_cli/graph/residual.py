"""Residual blocks: `x + f(x)`, where f can be taken out whole."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch.fx import Graph, Node

from nnopt_cli.graph.coupling import is_tensor, sizes
from nnopt_cli.graph.cutting import assemble, duplicate
from nnopt_cli.graph.rules.base import operator_name

if TYPE_CHECKING:
    from torch.export import ExportedProgram


@dataclass(frozen=True)
class Block:
    """A residual branch.

    Attributes:
        add: name of the node that adds the branch to the skip.
        skip: name of the node that the branch starts from and is added to.
        branch: name of the branch's last node.
        nodes: names of the nodes that only the branch needs, in order.
        parameters: names of the parameters that only the branch needs.
    """

    add: str
    skip: str
    branch: str
    nodes: tuple[str, ...]
    parameters: tuple[str, ...]


def blocks(program: ExportedProgram) -> list[Block]:
    """The residual branches of a program that hold parameters, in order; inner ones of nested blocks too.

    A branch whose result or inner values are also used elsewhere is no block.
    """
    targets = {spec.arg.name: str(spec.target) for spec in program.graph_signature.input_specs if spec.target}
    nodes = list(program.graph.nodes)
    bit = {node: 1 << i for i, node in enumerate(nodes)}
    before = _ancestors(nodes, bit)
    found = []
    for add in nodes:
        if add.op != "call_function" or operator_name(add) != "add" or add.kwargs.get("alpha", 1) != 1:
            continue
        if not all(is_tensor(side) and sizes(side) == sizes(add) for side in add.args[:2]):
            continue
        for skip, branch in (add.args[:2], add.args[1::-1]):
            if before[branch] & bit[skip]:
                needed = before[branch] | bit[branch]
                inside = {node for node in nodes if needed & bit[node] and before[node] & bit[skip]}
                found.extend(_block(add, skip, branch, inside, targets))
    return found


def _ancestors(nodes: list[Node], bit: dict[Node, int]) -> dict[Node, int]:
    """Every node's inputs, their inputs, and so on, as bits."""
    out: dict[Node, int] = {}
    for node in nodes:
        out[node] = 0
        for source in node.all_input_nodes:
            out[node] |= out[source] | bit[source]
    return out


def _block(add: Node, skip: Node, branch: Node, inside: set[Node], targets: dict[str, str]) -> list[Block]:
    if any(user is not add and user not in inside for node in inside for user in node.users):
        return []
    held = [
        targets[source.name]
        for source in add.graph.nodes
        if source.name in targets and source.users and all(user in inside for user in source.users)
    ]
    if not held:
        return []
    names = tuple(node.name for node in add.graph.nodes if node in inside)
    return [Block(add.name, skip.name, branch.name, names, tuple(held))]


def without_blocks(program: ExportedProgram, removed: list[Block]) -> ExportedProgram:
    """The program with the branches taken out: each sum becomes its skip, and what only they used goes."""
    graph = duplicate(program.graph)
    named = {node.name: node for node in graph.nodes}
    for block in removed:
        add, branch = named[block.add], named[block.branch]
        skip = next(source for source in add.all_input_nodes if source is not branch)
        add.replace_all_uses_with(skip)
    graph.eliminate_dead_code()
    return _without_unused(program, graph)


def _without_unused(program: ExportedProgram, graph: Graph) -> ExportedProgram:
    """Drop the parameters and buffers that `program` read and `graph` no longer does."""
    signature = copy.deepcopy(program.graph_signature)
    read = {node.name for node in program.graph.nodes if node.op == "placeholder" and node.users}
    held = {spec.arg.name: spec.target for spec in signature.input_specs if spec.target}
    dead = [node for node in graph.nodes if node.op == "placeholder" and not node.users]
    gone = {node.name: held[node.name] for node in dead if node.name in read and node.name in held}
    signature.input_specs = [spec for spec in signature.input_specs if spec.arg.name not in gone]
    for node in dead:
        if node.name in gone:
            graph.erase_node(node)
    state, constants = (
        {name: tensor for name, tensor in home.items() if name not in gone.values()}
        for home in (program.state_dict, program.constants)
    )
    return assemble(program, graph, state, constants, signature)
