"""What is known about a group's units: their weights and, where data was run, gradients and activations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from nnopt_cli.graph.labels import Array
from nnopt_cli.graph.units import Group, Member, Scores

if TYPE_CHECKING:
    from nnopt_cli.graph.coupling import Coupling

Kind = Literal["weights", "gradients", "squares"]


@dataclass(frozen=True)
class Evidence:
    """Everything a criterion may look at.

    Attributes:
        weights: parameters and buffers by name.
        gradients: mean gradient of the loss by parameter name; empty without data.
        squares: mean squared gradient per batch (the diagonal of the empirical Fisher matrix).
        activations: mean |activation| per class of the coupling; None without data.
        seed: for criteria that draw.
    """

    weights: Mapping[str, Tensor]
    gradients: Mapping[str, Tensor] = field(default_factory=dict)
    squares: Mapping[str, Tensor] = field(default_factory=dict)
    activations: Scores | None = None
    seed: int = 0


@dataclass(frozen=True)
class Units:
    """The units of one group, and what is known about them.

    Attributes:
        coupling: where the group was found.
        group: units of one signature.
        evidence: what is known.
    """

    coupling: Coupling
    group: Group
    evidence: Evidence

    def __len__(self) -> int:
        return len(self.group.classes)

    def matrices(self, kind: Kind = "weights") -> Iterator[tuple[Member, Tensor]]:
        """For each dimension that the units lie in: a float64 matrix, one row per unit.

        A row holds all the elements that go with the unit in that dimension. Parameters of one
        dimension (biases, norm scales) come as matrices of few columns. Integer buffers are left out.
        """
        tensors: Mapping[str, Tensor] = getattr(self.evidence, kind)
        for member in self.group.members:
            tensor = tensors.get(member.parameter)
            if tensor is None or not tensor.is_floating_point():
                continue
            dim = self.coupling.value(self.coupling.parameters[member.parameter])[member.axis]
            assert dim is not None
            order = self._rows(self.coupling.roots[dim])
            rows = tensor.detach().movedim(member.axis, 0).reshape(tensor.shape[member.axis], -1)
            picked = rows.to("cpu", torch.float64)[torch.from_numpy(order)]
            yield member, picked.reshape(len(self), -1)

    def vectors(self, kind: Kind = "weights") -> Tensor:
        """One row per unit: all elements of weights of two or more dimensions that go with it (float64)."""
        parts = [matrix for member, matrix in self.matrices(kind) if self._is_weight(member)]
        return torch.cat(parts, dim=1) if parts else torch.zeros(len(self), 0, dtype=torch.float64)

    def activations(self) -> Scores | None:
        """Mean |activation| per unit, or None without data."""
        found = self.evidence.activations
        return None if found is None else found[self.group.classes]

    def _is_weight(self, member: Member) -> bool:
        return len(self.coupling.value(self.coupling.parameters[member.parameter])) > 1

    def _rows(self, classes: Array) -> Array:
        """The indices of a dimension that belong to each unit, unit by unit."""
        at = np.searchsorted(self.group.classes, classes)
        at = np.where(at < len(self), at, 0)
        mine = np.flatnonzero(self.group.classes[at] == classes)
        return mine[np.argsort(at[mine], kind="stable")]
