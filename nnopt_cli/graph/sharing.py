"""What a program computes twice, computed once: nodes of equal operators on equal inputs and tensors are one.

Value numbering from the inputs on (hash-consing, after Ershov 1958). Tensors of different members of a
fused program count as equal where they hold the same bytes; within a member they stay apart, as
training may drive them apart.
"""

from __future__ import annotations

import copy
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.fx import Graph, Node

from nnopt_cli.graph.coupling import identity
from nnopt_cli.graph.cutting import assemble, duplicate
from nnopt_cli.graph.rules.base import argument, operator_name

if TYPE_CHECKING:
    from torch.export import ExportedProgram

_DROPOUTS = ("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout")


@dataclass(frozen=True)
class Shared:
    """What several members of a program have in common.

    Attributes:
        operators: operators of later members that an earlier one computes for them.
        layers: those of them that read weights.
        elements: elements of floating tensors that need not be stored again.
    """

    operators: int = 0
    layers: int = 0
    elements: int = 0


def share(program: ExportedProgram, prefix: str) -> tuple[ExportedProgram, Shared]:
    """The program with what its members have in common stored and computed once.

    Args:
        program: it is not changed; its tensors are held, not copied.
        prefix: the tensors of member 3 are called `prefix` + "3." + their own name.

    Operators that draw random numbers, and results that are written to later, are left as they are.
    """
    graph = duplicate(program.graph)
    without_writes(graph)
    tensors = {**program.constants, **program.state_dict}
    targets = {s.arg.name: str(s.target) for s in program.graph_signature.input_specs if s.target}
    held = {
        node: targets[node.name]
        for node in graph.nodes
        if node.op == "placeholder" and isinstance(tensors.get(targets.get(node.name, "")), Tensor)
    }
    merge = _Merge(held, {node: _member(name, prefix) for node, name in held.items()}, tensors)
    merge.run(graph)
    gone = _unread(merge, held)
    for node in reversed(graph.nodes):
        if node in merge.merged:
            graph.erase_node(node)
    for node in gone:
        graph.erase_node(node)
    names = {held[node] for node in gone}
    signature = copy.deepcopy(program.graph_signature)
    signature.input_specs = [s for s in signature.input_specs if str(s.target) not in names]
    state, constants = (
        {name: tensor for name, tensor in home.items() if name not in names}
        for home in (program.state_dict, program.constants)
    )
    found = Shared(len(merge.merged), merge.layers, _elements(tensors, state, constants))
    return assemble(program, graph, state, constants, signature), found


def _member(name: str, prefix: str) -> str:
    return name.removeprefix(prefix).partition(".")[0] if name.startswith(prefix) else ""


def _elements(before: Mapping[str, Any], *after: Mapping[str, Any]) -> int:
    """How many floating elements went, each memory counted once."""
    left = {name: tensor for home in after for name, tensor in home.items()}

    def count(tensors: Mapping[str, Any]) -> int:
        kept = {identity(t): t for t in tensors.values() if isinstance(t, Tensor) and t.is_floating_point()}
        return sum(tensor.numel() for tensor in kept.values())

    return count(before) - count(left)


def without_writes(graph: Graph) -> None:
    """Replace operators that write to their input by those that do not, where nobody else sees the input."""
    for node in graph.nodes:
        source = node.args[0] if node.args else None
        if not _writes(node) or not isinstance(source, Node) or not isinstance(node.target, _OPERATOR):
            continue
        plain = _plain_form(node.target)
        unseen = source.op == "call_function" and len(source.users) == 1 and not _views(source)
        if plain is not None and unseen:
            node.target = plain


_OPERATOR = torch._ops.OpOverload


def _writes(node: Node) -> bool:
    return isinstance(node.target, _OPERATOR) and node.target._schema.is_mutable


def _views(node: Node) -> bool:
    """Whether its result may share memory with an input."""
    if not isinstance(node.target, _OPERATOR):
        return True
    shares = any(each.alias_info is not None for each in node.target._schema.returns)
    return shares or operator_name(node) in ("reshape", "flatten", "contiguous", "to", "type_as", "dropout")


def _plain_form(target: Any) -> Any:
    name = target._schema.name.partition("::")[2]
    packet = getattr(torch.ops.aten, name.removesuffix("_"), None) if name.endswith("_") else None
    return getattr(packet, target._overloadname, None) if packet is not None else None


class _Merge:
    """One walk over a graph."""

    def __init__(
        self, held: Mapping[Node, str], members: Mapping[Node, str], tensors: Mapping[str, Any]
    ) -> None:
        self._members = members
        self._content = _contents(held, tensors)
        self.replaced: dict[Node, Node] = {}  # placeholder -> the one that stands for it
        self.merged: set[Node] = set()
        self.layers = 0

    def run(self, graph: Graph) -> None:
        """Find every operator that an earlier one computes already, and let its users read that one."""
        known: dict[Hashable, list[Node]] = {}
        untouchable = _written(graph)
        for node in graph.nodes:
            if node.op != "call_function" or node in untouchable or not _repeatable(node):
                continue
            key = self._key(node)
            twin = next((other for other in known.get(key, ()) if self._fits(node, other)), None)
            if twin is None:
                known.setdefault(key, []).append(node)
                continue
            pairs = list(self._tensors(node, twin))
            self.replaced.update((mine, its) for mine, its in pairs if mine is not its)
            self.layers += bool(pairs)
            node.replace_all_uses_with(twin)
            self.merged.add(node)
        for mine, its in self.replaced.items():
            while its in self.replaced:
                its = self.replaced[its]
            mine.replace_all_uses_with(its)

    def _key(self, node: Node) -> Hashable:
        return str(node.target), self._frozen(node.args), self._frozen(node.kwargs)

    def _frozen(self, value: Any) -> Hashable:
        if isinstance(value, Node):
            return "node", self._content.get(value, value)
        if isinstance(value, list | tuple):
            return tuple(map(self._frozen, value))
        if isinstance(value, dict):
            return tuple((key, self._frozen(item)) for key, item in sorted(value.items()))
        if isinstance(value, slice):
            return "slice", *map(self._frozen, (value.start, value.stop, value.step))
        return type(value).__name__, repr(value)

    def _tensors(self, node: Node, twin: Node) -> Iterator[tuple[Node, Node]]:
        pairs = zip(node.all_input_nodes, twin.all_input_nodes, strict=True)
        return ((mine, its) for mine, its in pairs if mine in self._members)

    def _fits(self, node: Node, twin: Node) -> bool:
        """Whether tensors that are equal, but not the same, are of different members."""
        if len(node.all_input_nodes) != len(twin.all_input_nodes):
            return False
        return all(
            mine is its or self._members[mine] != self._members.get(its, "")
            for mine, its in self._tensors(node, twin)
        )


def _contents(held: Mapping[Node, str], tensors: Mapping[str, Any]) -> dict[Node, Hashable]:
    """For every tensor what is equal for equal ones; bytes are looked at where type and shape repeat."""
    kinds: dict[Hashable, list[Node]] = {}
    for node, name in held.items():
        tensor = tensors[name]
        kinds.setdefault((tensor.dtype, tuple(tensor.shape), str(tensor.device)), []).append(node)
    out: dict[Node, Hashable] = {}
    for kind, nodes in kinds.items():
        for node in nodes:
            out[node] = (kind, _digest(tensors[held[node]]) if len(nodes) > 1 else b"")
    return out


def _digest(tensor: Tensor) -> bytes:
    plain = tensor.detach().cpu().contiguous()
    return sha256(plain.reshape(-1).view(torch.uint8).numpy().data).digest() if plain.numel() else b""


def _repeatable(node: Node) -> bool:
    """Whether the operator gives the same every time that it is given the same."""
    if not isinstance(node.target, _OPERATOR):
        return not isinstance(node.target, torch._ops.HigherOrderOperator)  # getitem, arithmetic on sizes
    if operator_name(node) in _DROPOUTS:
        return not argument(node, 2, "train")
    return (
        not _writes(node)
        and not node.is_impure()
        and torch.Tag.nondeterministic_seeded not in node.target.tags
    )


def _written(graph: Graph) -> set[Node]:
    """Results whose memory is written to later, and what may share memory with them."""
    out: set[Node] = set()
    queue = [source for node in graph.nodes if _writes(node) for source in node.all_input_nodes]
    while queue:
        node = queue.pop()
        if node not in out:
            out.add(node)
            if node.op == "call_function" and _views(node):
                queue.extend(node.all_input_nodes)
    return out


def _unread(merge: _Merge, held: Mapping[Node, str]) -> list[Node]:
    """Tensors that another stands for, and those of their layers that nothing reads (a norm's counter)."""
    layers = {held[node].rpartition(".")[0] for node in merge.replaced}
    idle = {
        node
        for node, name in held.items()
        if name.rpartition(".")[0] in layers and all(user in merge.merged for user in node.users)
    }
    return [node for node in held if node in merge.replaced or node in idle]
