"""The exponential moving average of weights and statistics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn


class Average:
    """A second set of weights that follows the first slowly; it is what is evaluated and kept.

    shadow = d * shadow + (1 - d) * weight, d = min(decay, (1 + t) / (10 + t)) after t steps

    Polyak and Juditsky 1992; the slow start is TensorFlow's `ExponentialMovingAverage(num_updates)`.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self._live = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        self.shadow: dict[str, Tensor] = {name: value.detach().clone() for name, value in self._live.items()}
        floating = [name for name, value in self._live.items() if value.is_floating_point()]
        self._averaged = [(self.shadow[name], self._live[name]) for name in floating]
        self._copied = [(self.shadow[name], self._live[name]) for name in self._live if name not in floating]

    def update(self, step: int) -> None:
        """Follow, after optimizer step number `step` (from 0)."""
        import torch

        share = 1 - min(self.decay, (1 + step) / (10 + step))
        with torch.no_grad():
            slow, live = zip(*self._averaged, strict=True)
            torch._foreach_lerp_(list(slow), [value.detach() for value in live], share)
            for shadow, value in self._copied:
                shadow.copy_(value)

    def load(self, values: Mapping[str, Tensor]) -> None:
        """Take over what a checkpoint holds."""
        for name, value in values.items():
            self.shadow[name].copy_(value)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """The module computes with the average for as long as the block lasts."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for name, value in self._live.items():
            shadow = self.shadow[name]
            value.data, shadow.data = shadow.data, value.data
