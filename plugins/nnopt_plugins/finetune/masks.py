"""Pruned weights stay zero: what is zero at first is multiplied by zero after every step."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from nnopt_cli.graph import Layer


class Masks:
    """The zeros of weights. N:M and blocks need nothing of their own: their pattern is that of the zeros.

    Attributes:
        kept: weights that are zero, all tensors.
        tensors: names of the tensors that hold some.
    """

    def __init__(self, layers: Iterable[Layer]) -> None:
        """Only weights with two or more dimensions count: a bias of zero was not pruned."""
        import torch

        self._weights: list[Tensor] = []
        self._masks: list[Tensor] = []
        self.tensors: list[str] = []
        self.kept = 0
        for layer in layers:
            weight = layer.parameter.detach()
            zeros = int((weight == 0).sum()) if weight.dim() > 1 else 0
            if zeros and zeros < weight.numel():
                self.kept += zeros
                self.tensors.append(layer.name)
                self._weights.append(layer.parameter)
                mask = torch.empty_like(weight)  # in the weight's own order in memory
                self._masks.append(mask.copy_(weight != 0))

    def apply(self) -> None:
        """Set the weights that were zero to zero again."""
        import torch

        if self._weights:
            with torch.no_grad():
                torch._foreach_mul_(self._weights, self._masks)

    def settle(self) -> None:
        """The same, once: a negative weight times zero is -0, of which no trace shall stay in a file."""
        import torch

        with torch.no_grad():
            for weight, mask in zip(self._weights, self._masks, strict=True):
                weight.masked_fill_(mask == 0, 0.0)
