"""What the members take and give, read off their graphs, and whether that fits together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from nnopt_cli import UsageError
from nnopt_cli.data import main_output
from nnopt_cli.graph import common_inputs, output_values
from nnopt_plugins.ensemble.outputs_networks import Meaning

if TYPE_CHECKING:
    from torch import Tensor
    from torch.export import ExportedProgram

    from nnopt_cli import Members, Run

_KEEP = ("clone", "contiguous", "to", "_to_copy", "view", "reshape", "flatten", "squeeze", "detach", "alias")
_TURN = ("softmax", "_softmax", "_safe_softmax", "sigmoid", "special_expit")


def check_signatures(members: Members) -> None:
    """Raise UsageError where members do not take the same inputs or give outputs of the same shape."""
    specs = [model.inputs for model in members.models]
    common_inputs([spec for spec in specs if spec is not None], members.names)
    first, *others = (_output(model.program()) for model in members.models)
    for other, name in zip(others, members.names[1:], strict=True):
        mine, its = (_shown(value) for value in (first, other))
        if mine != its:
            raise UsageError(
                f"{members.names[0]} gives outputs of shape {mine}, and {name} of shape {its}",
                "Outputs can be fused where they mean the same: the same classes, in the same order.",
            )


def meaning(members: Members, task: str) -> Meaning:
    """What the outputs mean: as asked for, else as the data say, else by their shape.

    Classes lie in dimension 1; in the last one where the network reads tokens and answers for each.
    """
    programs = [model.program() for model in members.models]
    value = _output(programs[0])
    tokens = _reads_tokens(programs[0]) and value.dim() > 2
    axis = -1 if tokens else min(1, value.dim() - 1)
    if task == "auto":
        width = value.shape[axis]
        several = isinstance(width, int) and width > 1 and value.dim() > 1
        guess = "classification" if several else "regression"
        task = members.data.task.kind if members.data is not None else guess
    return Meaning(task, axis, tuple(map(_gives_probabilities, programs)))


def said(found: Meaning, members: Members, run: Run) -> None:
    """Note what the outputs were taken for, where nothing said it."""
    if members.data is None:
        width = _output(members.models[0].program()).shape[found.axis]
        what = {
            "classification": f"logits of {width} classes",
            "multi-label": f"logits of {width} labels",
            "regression": "values",
        }[found.task]
        if found.task != "regression" and all(found.probabilities):
            what = what.replace("logits", "probabilities")
        run.note(f"The outputs are taken as {what}; --method NAME:task=… says otherwise.")


def _output(program: ExportedProgram) -> Tensor:
    return main_output(output_values(program))


def _shown(value: Tensor) -> str:
    """A shape with the sizes that may vary left open."""
    return "[" + ", ".join(str(size) if isinstance(size, int) else "any" for size in value.shape) + "]"


def _reads_tokens(program: ExportedProgram) -> bool:
    names = set(program.graph_signature.user_inputs)
    nodes = [node for node in program.graph.nodes if node.op == "placeholder" and node.name in names]
    values = [node.meta["val"] for node in nodes if isinstance(node.meta["val"], torch.Tensor)]
    return bool(values) and not values[0].is_floating_point()


def _gives_probabilities(program: ExportedProgram) -> bool:
    """Whether the output is what a softmax or a sigmoid gives."""
    value = _output(program)
    nodes: Any = [node for node in program.graph.nodes if node.meta.get("val") is value]
    node = nodes[-1] if nodes else None
    while node is not None and node.op == "call_function":
        name = getattr(getattr(node.target, "_schema", None), "name", "").removeprefix("aten::")
        if name in _TURN:
            return True
        if name not in _KEEP or not node.all_input_nodes:
            return False
        node = node.all_input_nodes[0]
    return False
