"""Losses for classes and labels; outputs are logits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from nnopt_cli import Loss, NnoptError, option

if TYPE_CHECKING:
    from torch import Tensor


class CrossEntropy(Loss):
    """The usual loss for one class of several.

    -log p(true class), p the softmax of the outputs; with smoothing s and K classes - sum of t log p, t being
    1 - s + s/K for the true class and s/K for the others

    Bridle 1990 (NATO ASI F68); smoothing: Szegedy et al. 2016, arXiv:1512.00567, section 7.
    """

    tasks: ClassVar[tuple[str, ...]] = ("classification",)
    default_for: ClassVar[tuple[str, ...]] = ("classification",)

    smoothing: float = option(0.0, help="Share of the target that is spread over all classes.", ge=0, lt=1)
    weights: tuple[Annotated[float, Field(ge=0, allow_inf_nan=False)], ...] = option(
        (), help="One factor for each class; the mean is weighted by them."
    )

    def __call__(self, outputs: Tensor, target: Tensor) -> Tensor:
        """See `Loss`."""
        from torch.nn.functional import cross_entropy

        weight = None
        if self.weights:
            if len(self.weights) != outputs.shape[1]:
                raise NnoptError(
                    f"the loss has {len(self.weights)} weights, and the model tells {outputs.shape[1]} "
                    "classes apart",
                    "Give one weight for each class: cross-entropy:weights=[1,2,…].",
                )
            weight = outputs.new_tensor(self.weights)
        return cross_entropy(outputs, target, weight, label_smoothing=self.smoothing)


class BinaryCrossEntropy(Loss):
    """The usual loss where several labels may be there, each on its own.

    -positive * t log p - (1 - t) log(1 - p), p the sigmoid of the output; mean over the labels

    Cox 1958 (J. R. Stat. Soc. B 20), the likelihood of logistic regression.
    """

    tasks: ClassVar[tuple[str, ...]] = ("multi-label",)
    default_for: ClassVar[tuple[str, ...]] = ("multi-label",)

    positive: float = option(1.0, help="Factor of the term for labels that are there.", gt=0)

    def __call__(self, outputs: Tensor, target: Tensor) -> Tensor:
        """See `Loss`."""
        from torch.nn.functional import binary_cross_entropy_with_logits

        factor = outputs.new_tensor(self.positive)
        return binary_cross_entropy_with_logits(outputs, target.to(outputs.dtype), pos_weight=factor)


class KL(Loss):
    """Divergence from the target's shares of the classes to those that the model gives.

    sum over classes of t log(t / p), p the softmax of the outputs; for a class number, which is all of one
    share, the cross-entropy

    Kullback and Leibler 1951; for soft targets Hinton et al. 2015, arXiv:1503.02531.
    """

    tasks: ClassVar[tuple[str, ...]] = ("classification",)

    def __call__(self, outputs: Tensor, target: Tensor) -> Tensor:
        """See `Loss`."""
        from torch.nn.functional import cross_entropy, kl_div, log_softmax

        if not target.is_floating_point():
            return cross_entropy(outputs, target)
        return kl_div(log_softmax(outputs, 1), target, reduction="none").sum(1).mean()
