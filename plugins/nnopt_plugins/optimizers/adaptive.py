"""Steps scaled, weight by weight, by the size that gradients had."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nnopt_cli import option
from nnopt_plugins.optimizers.base import Decaying

if TYPE_CHECKING:
    from torch import optim


class Adagrad(Decaying):
    """Divides by the size of all gradients so far: steps get smaller, rare features keep long ones.

    s = s + g^2; w - lr / (1 + (t - 1) lr_decay) * g / (sqrt(s) + eps)

    Duchi et al. 2011 (JMLR 12).
    """

    lr: float = option(0.01, help="Learning rate.", gt=0)
    lr_decay: float = option(0.0, help="Further decay of the rate with the steps.", ge=0)
    initial: float = option(0.0, help="What the sum of squares starts from.", ge=0)
    eps: float = option(1e-10, help="Added to the divisor.", gt=0)

    def build(self, groups: list[dict[str, Any]], lr: float) -> optim.Optimizer:
        """See `Optimizer`."""
        from torch.optim import Adagrad

        return Adagrad(
            groups,
            lr=lr,
            lr_decay=self.lr_decay,
            weight_decay=self.weight_decay,
            initial_accumulator_value=self.initial,
            eps=self.eps,
        )


class RMSprop(Decaying):
    """Divides by the size of recent gradients: Adagrad with a memory that fades.

    s = alpha s + (1 - alpha) g^2 (centered: less the squared mean gradient);
    b = momentum * b + g / (sqrt(s) + eps); w - lr * b

    Tieleman and Hinton 2012 (Coursera, lecture 6.5); centered: Graves 2013, arXiv:1308.0850.
    """

    lr: float = option(0.01, help="Learning rate.", gt=0)
    alpha: float = option(0.99, help="Share of the mean squared gradient that is kept.", ge=0, lt=1)
    momentum: float = option(0.0, help="Share of the last step's direction that is kept.", ge=0, lt=1)
    centered: bool = option(False, help="Divide by the standard deviation of gradients.")
    eps: float = option(1e-8, help="Added to the divisor.", gt=0)

    def build(self, groups: list[dict[str, Any]], lr: float) -> optim.Optimizer:
        """See `Optimizer`."""
        from torch.optim import RMSprop

        return RMSprop(
            groups,
            lr=lr,
            alpha=self.alpha,
            eps=self.eps,
            weight_decay=self.weight_decay,
            momentum=self.momentum,
            centered=self.centered,
        )


class Adadelta(Decaying):
    """Steps in the units of the weights: recent steps' size over recent gradients' size.

    s = rho s + (1 - rho) g^2; d = g * sqrt(u + eps) / sqrt(s + eps); u = rho u + (1 - rho) d^2; w - lr * d

    Zeiler 2012, arXiv:1212.5701 (there lr is 1).
    """

    lr: float = option(1.0, help="Learning rate.", gt=0)
    rho: float = option(0.9, help="Share of the mean squares that is kept.", ge=0, lt=1)
    eps: float = option(1e-6, help="Added under the roots.", gt=0)

    def build(self, groups: list[dict[str, Any]], lr: float) -> optim.Optimizer:
        """See `Optimizer`."""
        from torch.optim import Adadelta

        return Adadelta(groups, lr=lr, rho=self.rho, eps=self.eps, weight_decay=self.weight_decay)
