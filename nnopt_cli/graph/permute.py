"""Permute: put a program's coupled channels into another order, which leaves its function as it is.

Which channels may change places is stricter than which may be removed: only those that the whole graph
treats alike, that is, that lie in the same dimensions of the same values and parameters, equally often.
Of channels that lie in a dimension several times (the rows of a head, the positions of a flattened
map), the first index goes to the first, the second to the second, and so on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.fx import Node

from nnopt_cli.graph.check import Check, describe, held_against
from nnopt_cli.graph.coupling import Coupling, identity
from nnopt_cli.graph.cutting import assemble, duplicate
from nnopt_cli.graph.labels import FROZEN, Array, Dim
from nnopt_cli.graph.reference import Watch, run
from nnopt_cli.graph.statistics import tensor_names
from nnopt_cli.graph.units import Group, Member, groups

if TYPE_CHECKING:
    from torch.export import ExportedProgram


@dataclass(frozen=True)
class Order:
    """An order of the channels.

    Attributes:
        coupling: the channels.
        source: for every class, the class whose weights it gets; itself where nothing moves.
    """

    coupling: Coupling
    source: Array

    @classmethod
    def unchanged(cls, coupling: Coupling) -> Order:
        """The order that they are in."""
        return cls(coupling, np.arange(coupling.labels.count, dtype=np.int64))

    def with_group(self, group: Group, places: Array) -> Order:
        """Unit i of `group` gets the weights of its unit `places[i]`."""
        source = self.source.copy()
        source[group.classes] = group.classes[places]
        return Order(self.coupling, source)

    def index(self, dim: Dim) -> Array | None:
        """For every index of `dim` the index that it is taken from; None where all stay.

        Raises ValueError where a class gets the weights of one that does not lie in `dim` as often.
        """
        if dim is None:
            return None
        classes = self.coupling.roots[dim]
        wanted = self.source[classes]
        if np.array_equal(wanted, classes):
            return None
        by_class = np.argsort(classes, kind="stable")
        ordered = classes[by_class]
        starts = np.searchsorted(ordered, classes)  # of each index's class, among the ordered
        number = np.empty(len(dim), np.int64)  # the first, second, … index of its class
        number[by_class] = np.arange(len(dim)) - starts[by_class]
        found = np.minimum(np.searchsorted(ordered, wanted) + number, len(dim) - 1)
        out: Array = by_class[found]
        if not np.array_equal(classes[out], wanted):
            raise ValueError("channels that the graph does not treat alike cannot change places")
        return out

    def apply(self, tensor: Tensor, value: Sequence[Dim]) -> Tensor:
        """`tensor`, whose dimensions have the labels `value`, in this order; itself if nothing moves."""
        for axis, dim in enumerate(value):
            index = self.index(dim)
            if index is not None:
                tensor = tensor.index_select(axis, _repeated(index, tensor.shape[axis], tensor.device))
        return tensor


def _repeated(index: Array, size: int, device: torch.device) -> Tensor:
    """`index` for a dimension that holds several periods of it."""
    periods = np.arange(size // len(index), dtype=np.int64)[:, None] * len(index)
    return torch.from_numpy((periods + index[None]).reshape(-1)).to(device)


def exchangeable(coupling: Coupling, seed: int = 0) -> list[Group]:
    """All groups of two or more units that may change places, in the order of the graph's parameters.

    Those of `groups`, split by the values of the graph that the units lie in.
    """
    rng = np.random.default_rng(seed)
    signature = np.zeros(coupling.labels.count, np.uint64)
    for value in coupling.values.values():
        for dim in _dims(value):
            key = rng.integers(1, 1 << 63, dtype=np.uint64)
            np.add.at(signature, coupling.roots[dim], key)
    out = []
    for group in groups(coupling, seed):
        found = signature[group.classes]
        for kind in np.unique(found):
            classes = group.classes[found == kind]
            if len(classes) > 1:
                out.append(Group(classes, group.members, group.heads))
    return sorted(out, key=lambda group: int(group.classes[0]))


def _dims(value: Any) -> list[Array]:
    if isinstance(value, np.ndarray):
        return [value]
    return [dim for part in value or () if part is not None for dim in _dims(part)]


def permuted(program: ExportedProgram, order: Order) -> ExportedProgram:
    """The program with its channels in another order; `program` is not changed, its graph is the same.

    Whether both compute the same is for `check_permuted` to say: a rule may be wrong.
    """
    state, constants = dict(program.state_dict), dict(program.constants)
    made: dict[object, Tensor] = {}
    for home in (state, constants):
        for name, tensor in home.items():
            node = order.coupling.parameters.get(name)
            if isinstance(tensor, Tensor) and node is not None and identity(tensor) not in made:
                made[identity(tensor)] = _moved(tensor, order, node)
    for home in (state, constants):
        for name, tensor in home.items():
            if isinstance(tensor, Tensor):
                home[name] = made.get(identity(tensor), tensor)
    return assemble(program, duplicate(program.graph), state, constants)


def _moved(tensor: Tensor, order: Order, node: Node) -> Tensor:
    out = order.apply(tensor.detach(), order.coupling.value(node))
    if out.data_ptr() == tensor.data_ptr():
        return tensor
    return torch.nn.Parameter(out, tensor.requires_grad) if isinstance(tensor, torch.nn.Parameter) else out


def check_permuted(
    program: ExportedProgram,
    moved: ExportedProgram,
    order: Order,
    batches: Sequence[int] = (2, 3),
    seed: int = 0,
) -> Check:
    """Run `moved` against `program` on random inputs, in float64 where that takes seconds.

    Outputs must agree, and every operator's result must be that of the original in the other order.
    """

    def expected(inputs: list[Any], dtype: torch.dtype, watch: Watch) -> list[Any]:
        def seen(node: Node, result: Any) -> None:
            if node in order.coupling.values:  # what nothing uses was not looked at
                watch(node, reordered(order, node, result))

        return run(program, inputs, dtype, seen)

    return held_against(expected, program, moved, batches, seed)


def reordered(order: Order, node: Node, result: Any) -> Any:
    """What `node` computes once its program is in `order`, from what it computes now."""
    value = order.coupling.values.get(node)
    if value is None:
        return result
    if isinstance(result, tuple | list):
        pairs = zip(value, result, strict=True)
        return type(result)(
            order.apply(part, dims) if isinstance(part, Tensor) else part for dims, part in pairs
        )
    return order.apply(result, value) if isinstance(result, Tensor) else result


def rows(
    group: Group, coupling: Coupling, member: Member, tensor: Tensor, order: Order | None = None
) -> Tensor:
    """All elements of `tensor` that go with each unit of `group` in one dimension: float64, one row per unit.

    Args:
        group: the units.
        coupling: its coupling.
        member: which dimension of which parameter.
        tensor: the parameter's values.
        order: the order in which the other dimensions are read; as they are by default.
    """
    value = coupling.value(coupling.parameters[member.parameter])
    dim = value[member.axis]
    assert dim is not None
    if order is not None:
        tensor = order.apply(tensor, [None if axis == member.axis else d for axis, d in enumerate(value)])
    at = indices(group, coupling.roots[dim])
    flat = tensor.detach().movedim(member.axis, 0).reshape(tensor.shape[member.axis], -1)
    return flat[torch.from_numpy(at).to(tensor.device)].double().reshape(len(group.classes), -1)


def indices(group: Group, classes: Array) -> Array:
    """The indices of a dimension, whose classes are given, that belong to each unit, unit by unit."""
    at = np.searchsorted(group.classes, classes)
    at = np.where(at < len(group.classes), at, 0)
    mine = np.flatnonzero((group.classes[at] == classes) & (classes != FROZEN))
    out: Array = mine[np.argsort(at[mine], kind="stable")]
    return out


def same_graph(one: ExportedProgram, other: ExportedProgram) -> str:
    """What first tells the graphs of two programs apart, tensors' values aside; empty if nothing does.

    Statements in another order are another graph, even where they compute the same.
    """
    names = tensor_names(one), tensor_names(other)
    mate: dict[Node, Node] = {}
    for a, b in zip(one.graph.nodes, other.graph.nodes, strict=False):
        kinds = (a.op, names[0].get(a.name)), (b.op, names[1].get(b.name))
        if a.op == b.op == "call_function":
            same = str(a.target) == str(b.target) and _alike([a.args, a.kwargs], [b.args, b.kwargs], mate)
        else:
            same = kinds[0] == kinds[1]
        if not same:
            return f"{describe(a)} and {describe(b)}" if a.op == b.op == "call_function" else f"{a} and {b}"
        mate[a] = b
    if len(one.graph.nodes) != len(other.graph.nodes):
        return f"{len(one.graph.nodes)} and {len(other.graph.nodes)} nodes"
    return unequal_tensors(one.state_dict, other.state_dict)


def _alike(one: Any, other: Any, mate: Mapping[Node, Node]) -> bool:
    """Whether arguments are the same, nodes of one graph being those of the other by `mate`."""
    match one:
        case Node():
            return mate.get(one) is other
        case list() | tuple():
            pairs = zip(one, other, strict=False) if isinstance(other, (list, tuple)) else ()
            return (
                isinstance(other, (list, tuple))
                and len(one) == len(other)
                and all(_alike(a, b, mate) for a, b in pairs)
            )
        case dict():
            return (
                isinstance(other, dict)
                and list(one) == list(other)
                and all(_alike(value, other[key], mate) for key, value in one.items())
            )
        case slice():
            return isinstance(other, slice) and _alike(
                [one.start, one.stop, one.step], [other.start, other.stop, other.step], mate
            )
        case str():
            return True  # names of sizes, in messages
    return type(one) is type(other) and bool(one == other)


def unequal_tensors(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> str:
    """The first name or shape that tells two state dicts apart; empty if none does."""
    for name in [*one, *(name for name in other if name not in one)]:
        if name not in one or name not in other:
            return f"{name}, which only one has"
        if one[name].shape != other[name].shape:
            return f"{name}: {list(one[name].shape)} and {list(other[name].shape)}"
    return ""
