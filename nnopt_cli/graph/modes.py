"""A program that can be trained: its norms and dropouts follow the module's mode again.

An exported graph holds the mode that it was exported in as constants: `batch_norm(…, training=False)`,
`dropout(x, 0.5, train=False)`. Here those become small modules that look at their own `training` flag,
so that `train()` and `eval()` work as on any network. The program itself is not changed, so what is
saved after training is its own inference graph, with new weights and statistics.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.export.passes import move_to_device_pass
from torch.fx import GraphModule, Node

from nnopt_cli.graph.coupling import identity
from nnopt_cli.graph.cutting import assemble, duplicate
from nnopt_cli.graph.rules.base import argument, operator_name

if TYPE_CHECKING:
    from torch.export import ExportedProgram

_FLAGS = ("train", "training", "use_input_stats")  # what operators call the mode
_DROPOUT: dict[str, type[nn.Module]] = {
    "dropout": nn.Dropout,
    "dropout_": nn.Dropout,
    "alpha_dropout": nn.AlphaDropout,
    "alpha_dropout_": nn.AlphaDropout,
}
_CHANNEL_DROPOUT: dict[int, type[nn.Module]] = {3: nn.Dropout1d, 4: nn.Dropout2d, 5: nn.Dropout3d}
_CUMULATIVE = 0.1  # momentum of norms that were exported with 0: those of `momentum=None` average over all


class ByMode(nn.Module):
    """Calls an operator with its mode flag set as the module's own mode is."""

    def __init__(self, operator: Any, place: int) -> None:
        super().__init__()
        self.operator = operator
        self.place = place

    def forward(self, *args: Any) -> Any:
        return self.operator(*args[: self.place], self.training, *args[self.place + 1 :])


class DecomposedNorm(nn.Module):
    """`_native_batch_norm_legit`, of which inference programs hold the form without training."""

    def forward(self, x: Any, gain: Any, bias: Any, mean: Any, var: Any, momentum: float, eps: float) -> Any:
        operator = torch.ops.aten._native_batch_norm_legit.default
        return operator(x, gain, bias, mean, var, self.training, momentum or _CUMULATIVE, eps)


def trainable(program: ExportedProgram, device: str = "cpu") -> nn.Module:
    """The program as a module that trains: a copy of its tensors, and modes that can be switched.

    Its parameters and buffers have the program's names (those that the graph does not read may be left
    out) and lie on `device`; tied ones are one object. It is in evaluation mode, and then computes what the
    program does.

    What an export leaves no trace of cannot come back: the dropout inside fused attention, and stochastic
    depth written in Python.
    """
    if torch.device(device).type != "cpu":  # devices that the graph names move, too
        graph = duplicate(program.graph)
        copied = assemble(program, graph, dict(program.state_dict), dict(program.constants))
        program = move_to_device_pass(copied, device)
    flat = program.module(check_guards=False)
    module = GraphModule(flat, flat.graph)  # without the checks that come with every call
    _copy_tensors(module)
    for part in [each for each in module.modules() if isinstance(each, GraphModule)]:
        _switch(part)
    return module.eval()


def _copy_tensors(module: nn.Module) -> None:
    """New memory for every parameter and buffer; what shares memory still does."""
    made: dict[object, torch.Tensor] = {}
    for part in module.modules():
        homes: tuple[dict[str, Any], ...] = (part._parameters, part._buffers)
        for home in homes:
            for name, tensor in home.items():
                if tensor is None:
                    continue
                place = identity(tensor)
                if place not in made:
                    copy = tensor.detach().clone()
                    learnt = isinstance(tensor, nn.Parameter)
                    made[place] = nn.Parameter(copy, tensor.requires_grad) if learnt else copy
                home[name] = made[place]


def _switch(module: GraphModule) -> None:
    """Put a module in place of every operator that is in inference mode."""
    graph = module.graph
    for number, node in enumerate(list(graph.nodes)):
        made = _switchable(node) if node.op == "call_function" else None
        if made is None:
            continue
        part, args = made
        name = f"mode_{number}_{operator_name(node).strip('_')}"
        module.add_submodule(name, part)
        with graph.inserting_before(node):
            call = graph.call_module(name, args)
        call.meta = dict(node.meta)
        node.replace_all_uses_with(call)
        graph.erase_node(node)
    module.recompile()


def _switchable(node: Node) -> tuple[nn.Module, tuple[Any, ...]] | None:
    """The module in place of an operator, and what it is called with; None where it has no mode."""
    name = operator_name(node)
    if not isinstance(node.target, torch._ops.OpOverload):
        return None
    if name == "_native_batch_norm_legit_no_training":
        return DecomposedNorm(), _all(node)
    names = [each.name for each in node.target._schema.arguments]
    flag = next((each for each in _FLAGS if each in names), None)
    args = _all(node)
    if flag is None or args[names.index(flag)] is not False:
        return None  # it has no mode, or the source itself trains in every mode
    if name in _DROPOUT or name in ("feature_dropout", "feature_dropout_"):
        value = args[0].meta.get("val")
        kind = _DROPOUT.get(name) or _CHANNEL_DROPOUT.get(value.dim() if value is not None else 0)
        if kind is not None:
            return kind(args[1], inplace=name.endswith("_")), args[:1]
    if name in ("batch_norm", "instance_norm") and not args[names.index("momentum")]:
        place = names.index("momentum")
        args = (*args[:place], _CUMULATIVE, *args[place + 1 :])
    return ByMode(node.target, names.index(flag)), args


def _all(node: Node) -> tuple[Any, ...]:
    """All arguments of an operator by position, defaults filled in."""
    target: Any = node.target
    schema = target._schema.arguments
    return tuple(
        argument(node, place, each.name, each.default_value if each.has_default_value() else None)
        for place, each in enumerate(schema)
    )
