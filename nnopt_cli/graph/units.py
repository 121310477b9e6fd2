"""Groups: the units that can be removed, by what they are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from nnopt_cli.graph.coupling import Coupling
from nnopt_cli.graph.labels import FROZEN, Array

if TYPE_CHECKING:
    import torch

Scores = npt.NDArray[np.float64]


class Member(NamedTuple):
    """A dimension of a parameter in which a group's units lie."""

    parameter: str
    axis: int


@dataclass(frozen=True)
class Group:
    """Units of one signature: each lies in the same dimensions equally often, so they may compete.

    Attributes:
        classes: the units, as classes of the coupling, in ascending order.
        members: the dimensions that they lie in.
        heads: whether they are attention heads.
    """

    classes: Array
    members: tuple[Member, ...]
    heads: bool = False

    @property
    def name(self) -> str:
        """The parameter that makes the channels: the first whose rows (axis 0) they are."""
        return next((m.parameter for m in self.members if m.axis == 0), self.members[0].parameter)


def groups(coupling: Coupling, seed: int = 0) -> list[Group]:
    """All groups of two or more removable units, in the order of the graph's parameters.

    A unit counts if it is a row of some weight of two or more dimensions. Signatures are sums of
    random 64-bit keys, one per dimension, so that no Python loop runs over units.
    """
    rng = np.random.default_rng(seed)
    count = coupling.labels.count
    signature = np.zeros(count, np.uint64)
    weighty, appears = np.zeros(count, bool), np.zeros(count, bool)
    where: list[tuple[Member, Array]] = []
    for name, node in coupling.parameters.items():
        value = coupling.value(node) if node.users else []  # what nothing reads is not pruned
        for axis, dim in enumerate(value):
            classes = coupling.classes(dim)
            if classes is None or not classes.size:
                continue
            np.add.at(signature, classes, rng.integers(1, 1 << 63, dtype=np.uint64))
            appears[classes] = True
            if len(value) > 1:
                weighty[classes] = True
            where.append((Member(name, axis), classes))
    free = np.flatnonzero(appears & weighty)
    free = free[free != FROZEN]
    kinds, kind_of = np.unique(signature[free], return_inverse=True)
    home = np.full(count, -1)
    home[free] = kind_of
    members: list[list[Member]] = [[] for _ in kinds]
    for member, classes in where:
        for kind in np.unique(home[classes]):
            if kind >= 0:
                members[kind].append(member)
    heads = np.zeros(count, bool)
    for labels in coupling.heads:
        heads[coupling.roots[labels]] = True
    found = []
    for kind in range(len(kinds)):
        classes = free[kind_of == kind]
        if len(classes) > 1:
            found.append(Group(classes, tuple(members[kind]), bool(heads[classes].all())))
    return sorted(found, key=lambda group: int(group.classes[0]))


def mass(coupling: Coupling, tensors: Mapping[str, torch.Tensor]) -> Scores:
    """For every class the number of weights that go with it (a weight may count in two classes)."""
    out = np.zeros(coupling.labels.count)
    for name, node in coupling.parameters.items():
        tensor = tensors.get(name)
        if tensor is not None and tensor.dim() > 1:
            for axis, dim in enumerate(coupling.value(node)):
                classes = coupling.classes(dim)
                if classes is not None:
                    np.add.at(out, classes, tensor.numel() / max(1, tensor.shape[axis]))
    return out
