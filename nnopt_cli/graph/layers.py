"""What training sees of a network: its parameters, what each is for, and which channels lie in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from nnopt_cli.graph.usage import CONVOLUTION, LINEAR, RECURRENT, program_uses

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.export import ExportedProgram
    from torch.fx import Node

Kind = Literal["conv", "linear", "norm", "bias", "other"]
_UNCHANGED = {  # a parameter stays what it is through these
    *("view", "reshape", "unsqueeze", "expand", "permute", "transpose", "t", "contiguous", "clone"),
    *("to", "_to_copy", "type_as", "alias", "detach", "slice", "select", "lift_fresh_copy"),
}


class Channels(NamedTuple):
    """The channels along one axis of a parameter.

    Attributes:
        axis: the axis.
        ids: int64, one for every index along the axis: which channel it is. The same number in several
            parameters says that they are coupled: the same channel; -1 for what is no channel.
    """

    axis: int
    ids: Tensor


@dataclass(frozen=True)
class Layer:
    """A parameter and what it is for.

    Attributes:
        name: its name in the network.
        parameter: the tensor that is trained.
        kind: weight of a convolution or of a linear map (recurrent ones included), gain of a norm, a bias,
            or something else, such as a table of embeddings.
        groups: its channels, one entry for each axis that has any; None where nobody asked.
    """

    name: str
    parameter: Tensor
    kind: Kind
    groups: tuple[Channels, ...] | None = None

    @property
    def is_weight(self) -> bool:
        """Whether decay and penalties are meant for it: no bias, no gain, nothing else that is a vector."""
        wide = sum(size > 1 for size in self.parameter.shape) > 1
        return self.kind in ("conv", "linear") or (self.kind == "other" and wide)


def layers_of(
    network: nn.Module, program: ExportedProgram | None = None, coupled: bool = False
) -> list[Layer]:
    """The parameters of a network that require gradients, tied ones once, in order.

    Args:
        network: a module, or what was made of `program`.
        program: says what each parameter is for by the operators that read it; otherwise the types of the
            modules say it. Its parameters are those of the network, by name.
        coupled: also find the channels: those that `program` couples (parameters on the graph that nothing
            may be cut from have none), or without a program the rows of each weight, on their own.
    """
    found = {name: value for name, value in network.named_parameters() if value.requires_grad}
    kinds = _kinds_of_modules(network) if program is None else _kinds_of_graph(program)
    out = [Layer(name, value, kinds.get(name, "other")) for name, value in found.items()]
    if not coupled:
        return out
    return _rows(out) if program is None else _coupled(out, program)


def parameter_groups(layers: Iterable[Layer], weight_decay: float | None = None) -> list[dict[str, Any]]:
    """Parameter groups for an optimizer: biases, the gains of norms and other vectors are not decayed.

    The rule of `Layer.is_weight`, usual since Goyal et al. 2017 (arXiv:1706.02677, section 5.3) and He et al.
    2019 (arXiv:1812.01187, section 3.1): decay is meant for what multiplies inputs.

    Args:
        layers: from `layers_of`.
        weight_decay: for the first group, the weights; None for the optimizer's own.
    """
    layers = list(layers)
    weights = [layer.parameter for layer in layers if layer.is_weight]
    others = [layer.parameter for layer in layers if not layer.is_weight]
    decay = {} if weight_decay is None else {"weight_decay": weight_decay}
    groups: list[dict[str, Any]] = [{"params": weights, **decay}, {"params": others, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def _kinds_of_modules(network: nn.Module) -> dict[str, Kind]:
    out: dict[str, Kind] = {}
    for prefix, module in network.named_modules():
        if prefix.endswith(".parametrizations") or ".parametrizations." in prefix:
            continue  # their parameters belong to the module that is parametrized
        for name, value in module.named_parameters(prefix, recurse=False):
            out[name] = _kind_in(module, name.rpartition(".")[2], value)
        for part, held in getattr(module, "parametrizations", {}).items():
            for name, value in held.named_parameters(f"{prefix}.parametrizations.{part}".lstrip(".")):
                size_alone = name.endswith(".original0")  # of weight norm, beside the direction
                out[name] = "other" if size_alone else _kind_in(module, part, value)
    return out


def _kind_in(module: nn.Module, name: str, value: Tensor) -> Kind:
    """What the parameter `name` of a module is for."""
    from torch.nn import Bilinear, Linear, MultiheadAttention, RNNBase
    from torch.nn.modules.conv import _ConvNd

    if "bias" in name.split("_"):
        return "bias"
    if name == "weight_g":
        return "other"  # weight norm's size of a weight
    if isinstance(module, _ConvNd):
        return "conv"
    if isinstance(module, (Linear, Bilinear, MultiheadAttention)):
        return "linear"
    if isinstance(module, RNNBase):
        return "linear" if value.dim() > 1 else "bias"
    title = type(module).__name__.lower()
    if "norm" in title and "weightnorm" not in title:
        return "norm"
    return "linear" if title.endswith("conv1d") and value.dim() == 2 else "other"  # GPT-2's linear maps


def _kinds_of_graph(program: ExportedProgram) -> dict[str, Kind]:
    """By the operators that read each parameter."""
    entries = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    uses = program_uses(program)
    out: dict[str, Kind] = {}
    for spec in program.graph_signature.input_specs:
        name = spec.target
        if name in program.state_dict and spec.arg.name in entries:
            roles = set(_roles(entries[spec.arg.name]))
            out[name] = _kind_read(uses.get(name, set()), roles, program.state_dict[name].dim())
    return out


def _kind_read(uses: set[str], roles: set[str], dimensions: int) -> Kind:
    """The kind of a parameter that is read as `uses` and `roles` say."""
    if roles & {"gain", "shift"}:
        return "norm" if "gain" in roles else "bias"
    if dimensions > 1:
        return "conv" if CONVOLUTION in uses else "linear" if uses & {LINEAR, RECURRENT} else "other"
    if RECURRENT in uses or "bias" in roles:
        return "bias"
    return "norm" if "factor" in roles else "other"


def _roles(node: Node) -> Iterator[str]:
    """What operators read a parameter as, also where its shape or type is changed first.

    Yields `gain` and `shift` of a norm, `bias` of a layer or of a sum, `factor` of a product, or nothing.
    """
    for user in node.users:
        name = getattr(getattr(user.target, "_schema", None), "name", "").partition("::")[2]
        if name in _UNCHANGED:
            yield from _roles(user)
            continue
        place = next((place for place, value in _arguments(user) if value is node), "")
        if "norm" in name and place in ("weight", "bias"):
            yield "gain" if place == "weight" else "shift"
        elif place == "bias" or (name == "addmm" and place == "self") or name in ("add", "add_"):
            yield "bias"
        elif name in ("mul", "mul_"):
            yield "factor"


def _arguments(node: Node) -> Iterator[tuple[str, Any]]:
    """An operator's arguments by the names that they have in its schema."""
    schema = getattr(node.target, "_schema", None)
    names = [argument.name for argument in schema.arguments] if schema is not None else []
    yield from zip(names, node.args, strict=False)
    yield from node.kwargs.items()


def _rows(layers: Sequence[Layer]) -> list[Layer]:
    """With the rows of each weight as channels of their own."""
    import torch

    out, start = [], 0
    for layer in layers:
        if layer.is_weight:
            count = len(layer.parameter)
            ids = torch.arange(start, start + count, device=layer.parameter.device)
            start += count
            out.append(replace(layer, groups=(Channels(0, ids),)))
        else:
            out.append(replace(layer, groups=()))
    return out


def _coupled(layers: Sequence[Layer], program: ExportedProgram) -> list[Layer]:
    """With the channels that the graph couples; whole attention heads count as one."""
    import numpy as np
    import torch

    from nnopt_cli.graph.coupling import analyse
    from nnopt_cli.graph.units import groups

    coupling = analyse(program)
    number = np.full(coupling.labels.count, -1)
    units = np.concatenate([group.classes for group in groups(coupling)] or [np.zeros(0, np.int64)])
    number[units] = np.arange(len(units))
    out = []
    for layer in layers:
        found = []
        node = coupling.parameters.get(layer.name)
        for axis, dim in enumerate(coupling.value(node) if node is not None else ()):
            classes = coupling.classes(dim)
            if classes is not None and len(classes) == layer.parameter.shape[axis]:
                ids = torch.from_numpy(number[classes])
                if bool((ids >= 0).any()):
                    found.append(Channels(axis, ids.to(layer.parameter.device)))
        out.append(replace(layer, groups=tuple(found)))
    return out
