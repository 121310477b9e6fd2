"""How large gradients are, layer by layer: those that vanish or explode are named."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nnopt_cli.graph import Layer

VANISHING = 1e-4  # of the median layer's root mean square
EXPLODING = 1e3
_FIRST, _EVERY = 10, 50  # the first steps, and then every so many


class Gradients:
    """Root mean squares of the gradients of weights (two or more dimensions), averaged over looked-at steps.

    Attributes:
        sums: by layer, the sum of the squares' means over the steps looked at.
        steps: how many these are.
    """

    def __init__(self, layers: Sequence[Layer]) -> None:
        self._layers = [layer for layer in layers if layer.is_weight]
        self.sums = [0.0] * len(self._layers)
        self.steps = 0

    def wanted(self, step: int) -> bool:
        """Whether a step is one to look at: looking at all would cost time."""
        return step < _FIRST or step % _EVERY == 0

    def look(self) -> None:
        """Take the gradients as they are now, before clipping."""
        import torch

        found = [layer.parameter.grad for layer in self._layers]
        norms = iter(torch.stack(torch._foreach_norm([g for g in found if g is not None])).double().tolist())
        for place, (layer, gradient) in enumerate(zip(self._layers, found, strict=True)):
            if gradient is not None:
                self.sums[place] += next(norms) ** 2 / layer.parameter.numel()
        self.steps += 1

    def rows(self) -> list[dict[str, Any]]:
        """A table for each layer: `name`, `rms`, `verdict` (`vanishing`, `exploding`, `none` or empty)."""
        if not self.steps:
            return []
        sizes = [(total / self.steps) ** 0.5 for total in self.sums]
        alive = [size for size in sizes if size > 0]
        middle = median(alive) if alive else 0.0
        return [
            {"name": layer.name, "rms": size, "verdict": _verdict(size, middle)}
            for layer, size in zip(self._layers, sizes, strict=True)
        ]

    def remarks(self) -> list[str]:
        """Sentences on layers whose gradients are out of proportion."""
        named: dict[str, list[str]] = {}
        for row in self.rows():
            if row["verdict"]:
                named.setdefault(row["verdict"], []).append(row["name"])
        said = {
            "none": "No gradient reaches {}: nothing that the loss sees depends on it.",
            "vanishing": "Gradients vanish in {}: less than 1/10,000 of the median layer's. Another "
            "initialisation, norms or a higher --lr may help.",
            "exploding": "Gradients explode in {}: more than 1,000 times the median layer's. --clip 1 or "
            "a lower --lr may help.",
        }
        return [text.format(_listed(named[verdict])) for verdict, text in said.items() if verdict in named]


def _verdict(size: float, middle: float) -> str:
    if size == 0:
        return "none"
    if size < VANISHING * middle:
        return "vanishing"
    return "exploding" if not size <= EXPLODING * middle else ""


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
