"""Averages: every tensor a linear combination of the members' tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from nnopt_cli import UsageError, option
from nnopt_plugins.ensemble.base import Combination

if TYPE_CHECKING:
    from nnopt_cli import Corresponding, Members

Over = Literal["tensor", "layer", "model"]


class Linear(Combination):
    """The weighted mean: a uniform soup where no weights are given.

    Wortsman et al., "Model soups", arXiv:2203.05482, recipe 1.
    """

    def survey(self, tensor: Corresponding) -> Sequence[float]:
        return tensor.shares


class Slerp(Combination):
    """Two members along the great circle between them, which keeps the length that a mean loses.

    Shoemake, "Animating rotation with quaternion curves", SIGGRAPH 1985. `--weights 1-t,t` says the same as
    t, and may say it layer by layer.
    """

    most: ClassVar[int | None] = 2

    t: float = option(0.5, help="How far from the first member to the second.", ge=0, le=1)
    angle: Over = option("tensor", help="Over what the angle is measured: each tensor, layer, or the model.")

    def survey(self, tensor: Corresponding) -> Sequence[float]:
        from nnopt_plugins.ensemble.formulas import slerp_coefficients

        t = tensor.weights[1] if tensor.weights else self.t
        return slerp_coefficients(tensor.gram(self.angle), t)


class Karcher(Combination):
    """The mean on the sphere, of any number of members: the point with the least squared angles to all.

    Grove and Karcher, Math. Z. 132, 1973; for two members it is slerp. Lengths are averaged.
    """

    angle: Over = option("tensor", help="Over what angles are measured: each tensor, layer, or the model.")

    def survey(self, tensor: Corresponding) -> Sequence[float]:
        from nnopt_plugins.ensemble.formulas import karcher_coefficients

        return karcher_coefficients(tensor.gram(self.angle), tensor.shares)


class ModelStock(Combination):
    """From the ancestor towards the members' mean, the farther the smaller the angle between them.

    Jang et al., "Model Stock: All we need is just a few fine-tuned models", arXiv:2403.19522.
    """

    base: ClassVar[Literal["no", "allowed", "required"]] = "required"
    weighted: ClassVar[bool] = False

    def survey(self, tensor: Corresponding) -> Sequence[float]:
        from nnopt_plugins.ensemble.formulas import stock_ratio

        ratio = stock_ratio(tensor.gram())
        return [ratio * share for share in tensor.shares]


class SWA(Combination):
    """The mean of checkpoints of one training run, batch norms re-estimated where there is data.

    Izmailov et al., "Averaging weights leads to wider optima and better generalization", arXiv:1803.05407.
    """

    name: ClassVar[str] = "swa"
    weighted: ClassVar[bool] = False

    def survey(self, tensor: Corresponding) -> Sequence[float]:
        return tensor.shares


class EMA(Combination):
    """The exponential moving average of checkpoints, the oldest named first.

    Polyak and Juditsky, "Acceleration of stochastic approximation by averaging", SIAM J. Control Optim. 30,
    1992; over checkpoints rather than steps.
    """

    name: ClassVar[str] = "ema"
    weighted: ClassVar[bool] = False

    decay: float = option(0.5, help="Share of the average so far at each checkpoint.", ge=0, lt=1)

    def check(self, members: Members) -> None:
        super().check(members)
        if len({str(model.path) for model in members.models}) < len(members.models):
            raise UsageError("ema: a checkpoint is named twice", "Name each once, the oldest first.")

    def survey(self, tensor: Corresponding) -> Sequence[float]:
        from nnopt_plugins.ensemble.formulas import moving_average

        return moving_average(self.decay, len(tensor.members))
