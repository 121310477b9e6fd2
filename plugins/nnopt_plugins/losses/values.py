"""Losses for values."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from nnopt_cli import Loss, NnoptError, option

if TYPE_CHECKING:
    from torch import Tensor


class MSE(Loss):
    """Mean squared error: the usual loss for values.

    (y - t)^2, mean over all outputs

    Legendre 1805; Gauss 1809.
    """

    tasks: ClassVar[tuple[str, ...]] = ("regression", "multi-label")
    default_for: ClassVar[tuple[str, ...]] = ("regression",)

    def __call__(self, outputs: Tensor, target: Tensor) -> Tensor:
        """See `Loss`."""
        from torch.nn.functional import mse_loss

        require_same_shape(outputs, target)
        return mse_loss(outputs, target)


class MAE(Loss):
    """Mean absolute error; outliers weigh less than in the squared one.

    |y - t|, mean over all outputs

    Boscovich 1757; Laplace 1789.
    """

    tasks: ClassVar[tuple[str, ...]] = ("regression",)

    def __call__(self, outputs: Tensor, target: Tensor) -> Tensor:
        """See `Loss`."""
        from torch.nn.functional import l1_loss

        require_same_shape(outputs, target)
        return l1_loss(outputs, target)


class Huber(Loss):
    """Squared for small errors, absolute for large ones.

    e^2 / 2 where |e| = |y - t| <= delta, else delta * (|e| - delta / 2); mean over all outputs

    Huber 1964 (Ann. Math. Stat. 35).
    """

    tasks: ClassVar[tuple[str, ...]] = ("regression",)

    delta: float = option(1.0, help="Error from which the loss grows linearly.", gt=0)

    def __call__(self, outputs: Tensor, target: Tensor) -> Tensor:
        """See `Loss`."""
        from torch.nn.functional import huber_loss

        require_same_shape(outputs, target)
        return huber_loss(outputs, target, delta=self.delta)


def require_same_shape(outputs: Tensor, target: Tensor) -> None:
    """Raises NnoptError where PyTorch would stretch one to the other's shape."""
    if outputs.shape != target.shape:
        raise NnoptError(
            f"outputs {list(outputs.shape)} and targets {list(target.shape)} differ in shape, and a loss for "
            "values compares them one by one",
            "For class numbers use cross-entropy.",
        )
