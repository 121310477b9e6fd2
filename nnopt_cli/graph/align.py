"""Which channels of two networks of one graph correspond: permutation matching, by weights or activations.

Ainsworth, Hayase, Srinivasa: Git Re-Basin, ICLR 2023, arXiv:2209.04836: section 3.1 (activations) and
3.2 (weights). Here the layers that share a permutation are those that the coupling of the graph says.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.fx import Node

from nnopt_cli.graph.coupling import Coupling, identity
from nnopt_cli.graph.labels import Array
from nnopt_cli.graph.permute import Order, exchangeable, indices, rows
from nnopt_cli.graph.reference import run
from nnopt_cli.graph.units import Group, Member

if TYPE_CHECKING:
    from torch.export import ExportedProgram

Gains = npt.NDArray[np.float64]  # units x units: what is gained where unit i gets the weights of unit j
_SWEEPS = 100  # over all groups; matching ends long before
_ROUNDS = 20  # of activations and weights together, which nothing forces to end


def match_weights(
    reference: ExportedProgram, other: ExportedProgram, coupling: Coupling, seed: int = 0
) -> Order:
    """The order of `other`'s channels in which its parameters agree best with `reference`'s.

    Maximises the sum over parameters of <A, P(B)> by coordinate descent over groups of coupled channels
    (Git Re-Basin, algorithm 1): each step is a linear assignment. The paper starts from the order as it
    is; here groups are first matched one after another by those weights alone whose other dimensions
    are matched already (or cannot move, like pixels and classes), which finds a permuted copy exactly.

    Args:
        reference: the network whose order is kept.
        other: one with the same graph.
        coupling: the channels, found in either of them.
        seed: of the order of the steps.
    """
    match = _WeightMatch(reference, other, coupling)
    match.start()
    rng = np.random.default_rng(seed)
    for _ in range(_SWEEPS):
        improved = [match.improve(match.groups[at]) for at in rng.permutation(len(match.groups))]
        if not any(improved):
            break
    return match.order


class _WeightMatch:
    def __init__(self, reference: ExportedProgram, other: ExportedProgram, coupling: Coupling) -> None:
        self.coupling = coupling
        self.order = Order.unchanged(coupling)
        self.groups = exchangeable(coupling)
        self._pairs = {
            name: (reference.state_dict[name].detach(), other.state_dict[name].detach())
            for name in _own_parameters(reference, coupling)
        }
        self._settled = np.ones(coupling.labels.count, bool)  # classes whose place is known
        for group in self.groups:
            self._settled[group.classes] = False

    def start(self) -> None:
        """Match every group once, that of which most is known next."""
        left = list(self.groups)
        while left:
            group = max(left, key=self._known)
            members = [m for m in self._members(group) if self._is_known(m)] or list(self._members(group))
            self.order = self.order.with_group(group, best(self._gains(group, members)))
            self._settled[group.classes] = True
            left = [each for each in left if each is not group]

    def improve(self, group: Group) -> bool:
        """Match one group to all others as they are now; whether that made the networks agree more."""
        members = list(self._members(group))
        gains = self._gains(group, members)
        proposed = self.order.with_group(group, best(gains))
        before, after = (self._agreement(group, order) for order in (self.order, proposed))
        if not after > before + 1e-9 * abs(before):
            return False
        self.order = proposed
        return True

    def refine(self, alike: Mapping[int, Gains], weights: float) -> None:
        """Match every group in turn by activations and weights, until nothing changes."""
        for _ in range(_ROUNDS if weights else 0):
            before = self.order.source
            for group in self.groups:
                found = _scaled(self._gains(group, list(self._members(group)))) * weights
                found = found + _scaled(alike.get(int(group.classes[0]), np.zeros(())))
                self.order = self.order.with_group(group, best(found))
            if np.array_equal(before, self.order.source):
                break

    def _members(self, group: Group) -> Iterator[Member]:
        return (member for member in group.members if member.parameter in self._pairs)

    def _known(self, group: Group) -> float:
        """The share of a unit's weights that can be compared already."""
        sizes = {m: self._pairs[m.parameter][0].numel() for m in self._members(group)}
        known = sum(size for member, size in sizes.items() if self._is_known(member))
        return float(known / max(1, sum(sizes.values())))

    def _is_known(self, member: Member) -> bool:
        value = self.coupling.value(self.coupling.parameters[member.parameter])
        dims = [dim for axis, dim in enumerate(value) if axis != member.axis and dim is not None]
        return all(bool(self._settled[self.coupling.roots[dim]].all()) for dim in dims)

    def _gains(self, group: Group, members: Sequence[Member]) -> Gains:
        """What each pair of units adds to the sum, with all other groups in the order of now."""
        out: Gains = np.zeros((len(group.classes),) * 2)
        for member in members:
            a, b = self._pairs[member.parameter]
            left = rows(group, self.coupling, member, a)
            right = rows(group, self.coupling, member, b, self.order)
            out += (left @ right.T).cpu().numpy()
        return out

    def _agreement(self, group: Group, order: Order) -> float:
        total = 0.0
        for name in {member.parameter for member in self._members(group)}:
            a, b = self._pairs[name]
            moved = order.apply(b, self.coupling.value(self.coupling.parameters[name]))
            total += float((a.double() * moved.double()).sum())
        return total


def _own_parameters(program: ExportedProgram, coupling: Coupling) -> list[str]:
    """Floating parameters, each memory once."""
    seen: set[object] = set()
    out = []
    for name in program.graph_signature.parameters:
        tensor = program.state_dict[name]
        if name in coupling.parameters and tensor.is_floating_point() and identity(tensor) not in seen:
            seen.add(identity(tensor))
            out.append(name)
    return out


def _scaled(gains: Gains) -> Gains:
    out: Gains = gains / max(float(np.abs(gains).max()), 1e-30)
    return out


def best(gains: Gains) -> Array:
    """For each row the column that it gets, so that the sum is largest (Crouse 2016, by scipy)."""
    from scipy.optimize import linear_sum_assignment

    finite = np.nan_to_num(gains, nan=0.0, posinf=0.0, neginf=0.0)
    out: Array = linear_sum_assignment(finite, maximize=True)[1].astype(np.int64)
    return out


def match_activations(
    reference: ExportedProgram,
    other: ExportedProgram,
    coupling: Coupling,
    feeds: Iterable[Sequence[Any]],
    weights: float = 1.0,
) -> Order:
    """The order of `other`'s channels in which they respond to the same inputs like `reference`'s.

    Maximises for each group of coupled channels the sum of the correlations of matched units (Li et al.
    2016, arXiv:1511.07543; Git Re-Basin, section 3.1), over samples and positions, at all results that
    hold the units; to which is added how well weights agree, both scaled to a largest gain of one.

    Args:
        reference: the network whose order is kept.
        other: one with the same graph, on the same device.
        coupling: the channels, found in a program with the same names of nodes.
        feeds: batches of the programs' inputs, flat.
        weights: how much the agreement of weights counts; 0 for activations alone.
    """
    found = exchangeable(coupling)
    sites = {group.classes[0]: _sites(coupling, group) for group in found}
    wanted = {name for places in sites.values() for name, _ in places}
    sums: dict[tuple[int, str], _Moments] = {}
    for feed in feeds:
        seen: list[dict[str, Tensor]] = []
        for program in (reference, other):
            results: dict[str, Tensor] = {}
            with torch.no_grad():
                run(program, list(feed), watch=_keeper(wanted, results))
            seen.append(results)
        for group in found:
            for name, index in sites[group.classes[0]]:
                pair = [_responses(results[name], index, len(group.classes)) for results in seen]
                sums.setdefault((int(group.classes[0]), name), _Moments()).add(*pair)
    match = _WeightMatch(reference, other, coupling)
    alike = {}
    for group in found:
        gains = [sums[int(group.classes[0]), name].correlation() for name, _ in sites[group.classes[0]]]
        if gains:
            alike[int(group.classes[0])] = np.sum(gains, axis=0)
            match.order = match.order.with_group(group, best(alike[int(group.classes[0])]))
    match.refine(alike, weights)
    return match.order


def _keeper(wanted: set[str], results: dict[str, Tensor]) -> Any:
    def keep(node: Node, result: Any) -> None:
        if node.name in wanted:
            results[node.name] = result

    return keep


def _sites(coupling: Coupling, group: Group) -> list[tuple[str, tuple[int, Array]]]:
    """The results that hold all units of a group, and where in them."""
    out: list[tuple[str, tuple[int, Array]]] = []
    for node, value in coupling.values.items():
        if node.op != "call_function" or isinstance(value[:1] and value[0], list):
            continue
        for axis, dim in enumerate(value):
            size = node.meta["val"].shape[axis] if dim is not None else 0
            if dim is None or size != len(dim) or not node.meta["val"].is_floating_point():
                continue
            at = indices(group, coupling.roots[dim])
            if len(np.unique(coupling.roots[dim][at])) == len(group.classes):
                out.append((node.name, (axis, at)))
                break
    return out


def _responses(result: Tensor, place: tuple[int, Array], units: int) -> Tensor:
    """Units x (samples and positions), float64."""
    axis, at = place
    moved = result.detach().movedim(axis, 0)[torch.from_numpy(at).to(result.device)]
    return moved.reshape(units, -1).double()


class _Moments:
    """Running first and second moments of two sets of units."""

    def __init__(self) -> None:
        self._count = 0
        self._parts: list[Any] = [0.0] * 5

    def add(self, a: Tensor, b: Tensor) -> None:
        self._count += a.shape[1]
        new = (a.sum(1), b.sum(1), a.square().sum(1), b.square().sum(1), a @ b.T)
        self._parts = [old + part for old, part in zip(self._parts, new, strict=True)]

    def correlation(self) -> Gains:
        """Pearson's, of every pair; 0 where a unit is always the same."""
        a, b, aa, bb, ab = (part / self._count for part in self._parts)
        spread = ((aa - a.square()).clamp_min(0).sqrt()[:, None]) * ((bb - b.square()).clamp_min(0).sqrt())
        both = ab - a[:, None] * b
        out: Gains = torch.where(spread > 1e-12, both / spread.clamp_min(1e-12), 0.0).cpu().numpy()
        return out
