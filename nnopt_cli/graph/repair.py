"""REPAIR: averaged networks whose units respond as widely as those that they are the average of.

Jordan et al., "REPAIR: REnormalizing Permuted Activations for Interpolation Repair", arXiv:2211.08403. The
average of units that are not quite alike varies less than either; layer upon layer, little is left.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.fx import Node

from nnopt_cli.graph.rules.base import argument, operator_name
from nnopt_cli.graph.statistics import NORMS, BatchStatistics, averaged, tensor_names

if TYPE_CHECKING:
    from torch.export import ExportedProgram

_SPATIAL = {"linear": 0, "conv1d": 1, "conv2d": 2, "conv3d": 3}
_LEAST = 1e-5  # of the wanted variance: a unit that varies less is not blown up any further


@dataclass(frozen=True)
class Responses:
    """What the units of a layer give over many samples.

    Attributes:
        mean: float64 `[units]`.
        spread: their standard deviation, float64 `[units]`.
    """

    mean: Tensor
    spread: Tensor

    @staticmethod
    def between(each: Sequence[Responses], shares: Sequence[float]) -> Responses:
        """Means and spreads that count as `shares` say (section 3, equations 1 and 2 of the paper)."""
        pairs = list(zip(each, shares, strict=True))
        mean = torch.stack([found.mean * share for found, share in pairs]).sum(0)
        return Responses(mean, torch.stack([found.spread * share for found, share in pairs]).sum(0))


@dataclass(frozen=True)
class Resettable:
    """A layer that can be given any mean and spread by way of its weights.

    Attributes:
        weight: its name; units are its first axis.
        bias: its name, if there is one.
        axis: of the layer's result, where the units are; from the end.
    """

    weight: str
    bias: str | None
    axis: int


def resettable(program: ExportedProgram) -> dict[str, Resettable]:
    """Linear layers and convolutions, by the name of their node, whose responses can be set.

    Left out: those that a batch norm follows, which does it itself; the last, of which the network returns
    something; weights that several layers use, and such as are constants.
    """
    names = {node: name for node, name in tensor_names(program).items() if name in program.state_dict}
    out = {}
    for node in program.graph.nodes:
        spatial = _SPATIAL.get(operator_name(node)) if node.op == "call_function" else None
        if spatial is None or any(operator_name(user) in NORMS for user in node.users):
            continue
        if _returned(node, names):
            continue
        weight, bias = argument(node, 1, "weight"), argument(node, 2, "bias")
        own = [part for part in (weight, bias) if part is not None]
        if all(isinstance(part, Node) and part.name in names and len(part.users) == 1 for part in own):
            named = names[bias.name] if bias is not None else None
            out[node.name] = Resettable(names[weight.name], named, -1 - spatial)
    return out


def _returned(node: Node, names: Mapping[str, str]) -> bool:
    """Whether the network returns what `node` gives, without a weight in between."""
    seen, waiting = {node}, [node]
    while waiting:
        for user in waiting.pop().users:
            if user.op == "output":
                return True
            if user not in seen and not any(each.name in names for each in user.all_input_nodes):
                seen.add(user)
                waiting.append(user)
    return False


def responses(program: ExportedProgram, feeds: Iterable[Sequence[Any]]) -> dict[str, Responses]:
    """What every resettable layer gives on batches of the program's (flat) inputs, by its weight's name."""
    layers = resettable(program)
    found = averaged(program, feeds, lambda: _Watch(program, layers, None))
    return {
        layer.weight: Responses(found[_key(node)][0], found[_key(node)][1].sqrt())
        for node, layer in layers.items()
        if _key(node) in found  # others gave no batch
    }


def repaired(
    program: ExportedProgram, wanted: Mapping[str, Responses], feeds: Iterable[Sequence[Any]]
) -> dict[str, Tensor]:
    """New weights and biases, by name, with which the layers respond as `wanted`; and batch-norm statistics.

    As in the paper every layer is normalised over the batch and then given the mean and spread that are
    wanted (without a bias the spread alone), so that each sees what the ones before it will make; the
    result is folded into the weights.

    Args:
        program: it is not changed; inputs and tensors are on one device.
        wanted: the responses of layers, by the names of their weights.
        feeds: batches of its inputs, flat.
    """
    layers = {node: layer for node, layer in resettable(program).items() if layer.weight in wanted}
    found = averaged(program, feeds, lambda: _Watch(program, layers, wanted))
    out = {name: value for name, value in found.items() if not name.endswith(_MARK)}
    for node, layer in layers.items():
        goal, (mean, variance) = wanted[layer.weight], found[_key(node)]
        scale = _scale(goal, variance)
        weight = program.state_dict[layer.weight].double()
        out[layer.weight] = weight * scale.reshape(-1, *[1] * (weight.dim() - 1))
        if layer.bias is not None:
            out[layer.bias] = (program.state_dict[layer.bias].double() - mean) * scale + goal.mean
    return out


_MARK = "()"  # no tensor's name ends like this


def _key(node: str) -> str:
    return node + _MARK


def _scale(wanted: Responses, variance: Tensor) -> Tensor:
    goal = wanted.spread**2
    return torch.where(goal > 0, (goal / (variance + _LEAST * goal)).sqrt(), torch.zeros_like(goal))


class _Watch(BatchStatistics):
    """Finds each layer's mean and variance; where responses are wanted, resets them over the batch."""

    def __init__(
        self,
        program: ExportedProgram,
        layers: Mapping[str, Resettable],
        wanted: Mapping[str, Responses] | None,
    ) -> None:
        super().__init__(program, anew=wanted is not None)
        self._layers = layers
        self._wanted = wanted or {}

    def run_node(self, n: Node) -> Any:
        result = super().run_node(n)
        layer = self._layers.get(n.name)
        if layer is None or result.numel() // result.shape[layer.axis] < 2:
            return result
        wide = result.double().movedim(layer.axis, -1)
        variance, mean = torch.var_mean(wide.reshape(-1, wide.shape[-1]), 0, correction=0)
        self.found[_key(n.name)] = torch.stack([mean, variance])
        goal = self._wanted.get(layer.weight)
        if goal is None:
            return result
        scale = _scale(goal, variance)
        reset = wide * scale if layer.bias is None else (wide - mean) * scale + goal.mean
        return reset.movedim(-1, layer.axis).to(result.dtype)
