"""Cut: take channels out of the parameters, and put every size that the graph holds right."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch.fx import Graph, Node

from nnopt_cli.graph.coupling import Coupling, identity, is_tensor
from nnopt_cli.graph.keep import Keep
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

    Raises:
        RuntimeError: the sizes do not fit together, which is a defect of a rule, never of the model.
    """
    state, constants = _smaller(program, coupling, keep)
    graph = duplicate(program.graph)
    pairs = list(zip(program.graph.nodes, graph.nodes, strict=True))
    for old, new in pairs:
        if new.op == "call_function" and old in coupling.values:
            resize(coupling, keep, old, new)
    _refresh(program, graph, {**constants, **state}, {new: old for old, new in pairs})
    return assemble(program, graph, state, constants)


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
) -> ExportedProgram:
    """`program` with another graph, other tensors, and if need be another signature."""
    from torch.export import ExportedProgram

    return ExportedProgram(
        root=program.graph_module,
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


def _refresh(program: ExportedProgram, graph: Graph, tensors: State, old_of: dict[Node, Node]) -> None:
    """Recompute the recorded values of all nodes behind a change, with the program's own symbols."""
    from torch._dispatch.python import enable_python_dispatcher

    targets = {spec.arg.name: spec.target for spec in program.graph_signature.input_specs}
    mode = fake_mode(graph)
    changed: set[Node] = set()
    with mode, enable_python_dispatcher(), torch.no_grad():
        for node in graph.nodes:
            if node.op == "placeholder":
                real = tensors.get(targets[node.name] or "")
                if isinstance(real, torch.Tensor) and real.shape != node.meta["val"].shape:
                    node.meta["val"] = mode.from_tensor(real, static_shapes=True)
                    changed.add(node)
            elif node.op == "call_function" and node in old_of:
                rewritten = not _same_arguments(node, old_of[node])
                if rewritten or any(source in changed for source in node.all_input_nodes):
                    args, kwargs = torch.fx.map_arg((node.args, node.kwargs), lambda n: n.meta["val"])
                    node.meta["val"] = node.target(*args, **kwargs)
                    changed.add(node)


def fake_mode(graph: Graph) -> Any:
    """The fake-tensor mode that a graph's recorded values belong to."""
    return next(node.meta["val"].fake_mode for node in graph.nodes if is_tensor(node))


def _same_arguments(new: Node, old: Node) -> bool:
    if new.target is not old.target:
        return False
    named = [torch.fx.map_arg((n.args, n.kwargs), lambda source: source.name) for n in (new, old)]
    return bool(named[0] == named[1])
