"""Losses for values."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from nnopt_cli import Loss, option

if TYPE_CHECKING:
    from torch import Tensor


class MSE(Loss):
    """Mean squared error: the usual loss for values."""

    tasks: ClassVar[tuple[str, ...]] = ("regression", "multi-label")
    default_for: ClassVar[tuple[str, ...]] = ("regression",)

    def __call__(self, outputs: Tensor, target: Tensor) -> Tensor:
        """See `Loss`."""
        from torch.nn.functional import mse_loss

        return mse_loss(outputs, target)


class MAE(Loss):
    """Mean absolute error; outliers weigh less than in the squared one."""

    tasks: ClassVar[tuple[str, ...]] = ("regression",)

    def __call__(self, outputs: Tensor, target: Tensor) -> Tensor:
        """See `Loss`."""
        from torch.nn.functional import l1_loss

        return l1_loss(outputs, target)


class Huber(Loss):
    """e²/2 for errors up to delta, then delta (|e| - delta/2) (Huber 1964)."""

    tasks: ClassVar[tuple[str, ...]] = ("regression",)

    delta: float = option(1.0, help="Error from which the loss grows linearly.", gt=0)

    def __call__(self, outputs: Tensor, target: Tensor) -> Tensor:
        """See `Loss`."""
        from torch.nn.functional import huber_loss

        return huber_loss(outputs, target, delta=self.delta)
