"""Regularizers that pull every weight towards zero on its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from nnopt_cli import Regularizer, option

if TYPE_CHECKING:
    from torch import Tensor

    from nnopt_cli import Layer

On = Literal["weights", "norms", "all"]


class Pull(Regularizer, kind="regularizer"):
    """The option that all of them have."""

    on: On = option("weights", help="What is kept small: weights, the gains of norms, or every parameter.")

    def chosen(self, layers: Sequence[Layer]) -> list[Tensor]:
        """The parameters that are kept small; biases and gains are not weights."""
        return [
            layer.parameter
            for layer in layers
            if self.on == "all" or (layer.is_weight if self.on == "weights" else layer.kind == "norm")
        ]


class L1(Pull):
    """The sum of absolute values: many weights end up near zero. On norms: network slimming.

    weight * sum |w|

    Tibshirani 1996; on the gains of norms Liu et al. 2017, arXiv:1708.06519.
    """

    weight: float = option(1e-5, help="Its share in the loss.", ge=0)

    def penalty(self, layers: Sequence[Layer]) -> Tensor:
        """See `Regularizer`."""
        return self.weight * _total([value.abs().sum() for value in self.chosen(layers)])


class L2(Pull):
    """Half the sum of squares: all weights get smaller. The gradient is that of an optimizer's weight_decay.

    weight / 2 * sum w^2

    Hoerl and Kennard 1970; Krogh and Hertz 1992 (NIPS).
    """

    weight: float = option(1e-4, help="Its share in the loss.", ge=0)

    def penalty(self, layers: Sequence[Layer]) -> Tensor:
        """See `Regularizer`."""
        return self.weight / 2 * _total([value.square().sum() for value in self.chosen(layers)])


class ElasticNet(Pull):
    """A mixture of both.

    weight * (ratio * sum |w| + (1 - ratio) / 2 * sum w^2)

    Zou and Hastie 2005, with the mixture as in Friedman et al. 2010 (J. Stat. Softw. 33).
    """

    weight: float = option(1e-5, help="Its share in the loss.", ge=0)
    ratio: float = option(0.5, help="Share of the absolute values.", ge=0, le=1)

    def penalty(self, layers: Sequence[Layer]) -> Tensor:
        """See `Regularizer`."""
        chosen = self.chosen(layers)
        absolute = _total([value.abs().sum() for value in chosen])
        squares = _total([value.square().sum() for value in chosen])
        return self.weight * (self.ratio * absolute + (1 - self.ratio) / 2 * squares)


class WeightDecay(Pull):
    """Decoupled weight decay, for any optimizer: weights shrink before its step, which does not see it.

    w * (1 - lr * weight), with the lr of the step

    Loshchilov and Hutter 2019, arXiv:1711.05101.
    """

    weight: float = option(
        0.01, help="Times the learning rate, the share that a weight loses in a step.", ge=0
    )

    def before_step(self, layers: Sequence[Layer], lr: float) -> None:
        """See `Regularizer`."""
        import torch

        if values := [value.detach() for value in self.chosen(layers)]:
            torch._foreach_mul_(values, 1 - lr * self.weight)


def _total(parts: list[Tensor]) -> Tensor:
    import torch

    return torch.stack(parts).sum() if parts else torch.zeros(())
