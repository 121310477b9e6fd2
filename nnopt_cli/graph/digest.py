"""Two runs compared operator by operator, without holding what either computed.

A deep network can hide a mistake from its outputs: where signals fade (as they do in one with fresh
random weights), a wrong channel early on changes nothing that is left at the end. So every result is
held against its counterpart where it is made, by its projection on fixed random vectors, one per
axis: equal values give equal projections, and other ones, or the same in another order, do not.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.fx import Node

from nnopt_cli.graph.rules.base import operator_name

# Operators whose result is not a function of their inputs.
_UNSETTLED = {"empty", "new_empty", "empty_like", "rand", "randn", "rand_like", "randn_like", "bernoulli"}


class Digest(NamedTuple):
    """What is kept of one tensor."""

    projection: float
    scale: float  # largest absolute value
    elements: int


class Comparison:
    """The results of one run, and the first operator at which a second run departs from them.

    Attributes:
        tolerance: relative to the largest value that an operator reads or writes.
        culprit: the first node (of the first run) whose results differ, if one does.
        difference: by how much, as a share of that largest value.
    """

    def __init__(self, tolerance: float) -> None:
        self.tolerance = tolerance
        self.culprit: Node | None = None
        self.difference = 0.0
        self._first: dict[str, tuple[Node, list[Digest]]] = {}
        self._vectors: dict[tuple[int, int, torch.device], Tensor] = {}

    def expect(self, node: Node, result: Any) -> None:
        """Note what the first run computed at `node`."""
        if operator_name(node) not in _UNSETTLED:
            self._first[node.name] = node, [self._digest(part) for part in floating(result)]

    def meet(self, node: Node, result: Any) -> None:
        """Hold what the second run computed at the node of that name against it."""
        if self.culprit is not None or node.name not in self._first:
            return
        counterpart, wanted = self._first[node.name]
        around = [found for source in counterpart.all_input_nodes for found in self._noted(source)]
        got = [self._digest(part) for part in floating(result)]
        if len(wanted) != len(got) or any(a.elements != b.elements for a, b in zip(wanted, got, strict=True)):
            self.culprit, self.difference = counterpart, float("inf")
            return
        for a, b in zip(wanted, got, strict=True):
            scale = max([a.scale, b.scale, *(other.scale for other in around)]) * a.elements**0.5
            gap = abs(a.projection - b.projection) / scale if scale else 0.0
            if not gap <= self.tolerance:
                self.culprit, self.difference = counterpart, gap
                return

    def _noted(self, source: Node) -> list[Digest]:
        return self._first[source.name][1] if source.name in self._first else []

    def _digest(self, tensor: Tensor) -> Digest:
        if not tensor.numel():
            return Digest(0.0, 0.0, 0)
        values = tensor.detach().to(torch.float64)
        scale = float(values.abs().max())
        if not scale < float("inf"):  # masks hold infinities
            values = torch.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
            scale = float(values.abs().max())
        for axis in reversed(range(values.dim())):
            values = values @ self._vector(axis, values.shape[axis], values.device)
        return Digest(float(values), scale, tensor.numel())

    def _vector(self, axis: int, size: int, device: torch.device) -> Tensor:
        key = axis, size, device
        if key not in self._vectors:
            seeded = torch.Generator().manual_seed(axis)
            self._vectors[key] = torch.randn(size, generator=seeded, dtype=torch.float64).to(device)
        return self._vectors[key]


def floating(result: Any) -> list[Tensor]:
    """The real floating tensors of an operator's result."""
    parts = result if isinstance(result, tuple | list) else [result]
    return [part for part in parts if isinstance(part, Tensor) and part.is_floating_point()]
