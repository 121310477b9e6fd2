"""Cut: take channels out of the parameters, and put every size that the graph holds right."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch.fx import Graph, GraphModule, Node
from torch.nn import Module

from nnopt_cli.graph.coupling import Coupling, identity
from nnopt_cli.graph.keep import Keep
from nnopt_cli.graph.recorded import fake_mode, record_sizes
from nnopt_cli.graph.resize import resize

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.export.graph_signature import ExportGraphSignature

State = dict[str, Any]


def cut(program: ExportedProgram, coupling: Coupling, keep: Keep) -> ExportedProgram:
    """A smaller program that holds only what `keep` keeps; `program` is not changed.

    Args:
        program: what `coupling` was found in.
        coupling: its channels.
        keep: which of them stay.

    Whether both compute the same is for `check_cut` to say: a rule may be wrong.
    """
    state, constants = _smaller(program, coupling, keep)
    root, graph = _cut_graph(program.graph, coupling, keep, fake_mode(program.graph))
    return assemble(program, graph, state, constants, root=root)


def _cut_graph(graph: Graph, coupling: Coupling, keep: Keep, mode: Any) -> tuple[Module, Graph]:
    """A smaller copy, and a module that holds what it refers to: its parts, cut likewise."""
    out, root = duplicate(graph), Module()
    pairs = list(zip(graph.nodes, out.nodes, strict=True))
    for old, new in pairs:
        if old.op == "get_attr":
            part = getattr(graph.owning_module, old.target)
            if isinstance(part, GraphModule):
                part = GraphModule(*_cut_graph(part.graph, coupling, keep, mode))
            setattr(root, old.target, part)
        elif old.op == "call_function" and old in coupling.values:
            resize(coupling, keep, old, new)
    record_sizes(mode, coupling, keep, pairs)
    out.eliminate_dead_code()  # what nothing uses was not looked at
    return root, out


def duplicate(graph: Graph) -> Graph:
    """A copy whose nodes keep their names, which signatures go by; torch renames what shadows a builtin."""
    out: Graph = copy.deepcopy(graph)
    for old, new in zip(graph.nodes, out.nodes, strict=True):
        new.name = old.name
    return out


def assemble(
    program: ExportedProgram,
    graph: Graph,
    state: State,
    constants: State,
    signature: ExportGraphSignature | None = None,
    root: Module | None = None,
) -> ExportedProgram:
    """`program` with another graph, other tensors, and if need be another signature or other parts."""
    from torch.export import ExportedProgram

    return ExportedProgram(
        root=root or program.graph_module,
        graph=graph,
        graph_signature=signature or copy.deepcopy(program.graph_signature),
        state_dict=state,
        range_constraints=copy.copy(program.range_constraints),
        module_call_graph=[copy.copy(entry) for entry in program.module_call_graph],
        example_inputs=program.example_inputs,
        constants=constants,
        verifiers=program.verifiers,
    )


def _smaller(program: ExportedProgram, coupling: Coupling, keep: Keep) -> tuple[State, State]:
    """Parameters, buffers and constants with the removed indices taken out; tied ones stay tied."""
    state, constants = dict(program.state_dict), dict(program.constants)
    made: dict[object, Any] = {}
    for home in (state, constants):
        for name, node in coupling.parameters.items():
            tensor = home.get(name)
            if isinstance(tensor, torch.Tensor) and identity(tensor) not in made:
                made[identity(tensor)] = take(tensor, coupling, keep, node)
    for home in (state, constants):
        for name, tensor in home.items():
            if isinstance(tensor, torch.Tensor):
                home[name] = made.get(identity(tensor), tensor)
    return state, constants


def take(tensor: torch.Tensor, coupling: Coupling, keep: Keep, node: Node) -> torch.Tensor:
    """What stays of the tensor behind the placeholder `node`; the same object if all of it does."""
    out = tensor.detach()
    for axis, dim in enumerate(coupling.value(node)):
        if dim is not None and keep.touches(dim):
            index = torch.from_numpy(keep.indices(dim)).to(tensor.device)
            out = out.index_select(axis, index)
    if out.shape == tensor.shape:
        return tensor
    return torch.nn.Parameter(out, tensor.requires_grad) if isinstance(tensor, torch.nn.Parameter) else out
