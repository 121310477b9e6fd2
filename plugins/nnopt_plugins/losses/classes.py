"""Losses for classes and labels; outputs are logits."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from nnopt_cli import Loss, NnoptError, option

if TYPE_CHECKING:
    from torch import Tensor


class CrossEntropy(Loss):
    """-log of the softmax of the true class: the usual loss for one class of several.

    With smoothing s and K classes the target is 1 - s + s/K for the true class and s/K for the others
    (Szegedy et al. 2016, arXiv:1512.00567, section 7).
    """

    tasks: ClassVar[tuple[str, ...]] = ("classification",)
    default_for: ClassVar[tuple[str, ...]] = ("classification",)

    smoothing: float = option(0.0, help="Share of the target that is spread over all classes.", ge=0, lt=1)
    weights: tuple[float, ...] = option((), help="One factor for each class; the mean is weighted by them.")

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
    """-log of the sigmoid, on its own for every label: the usual loss where several may be there."""

    tasks: ClassVar[tuple[str, ...]] = ("multi-label",)
    default_for: ClassVar[tuple[str, ...]] = ("multi-label",)

    positive: float = option(1.0, help="Factor of the term for labels that are there.", gt=0)

    def __call__(self, outputs: Tensor, target: Tensor) -> Tensor:
        """See `Loss`."""
        from torch.nn.functional import binary_cross_entropy_with_logits

        factor = outputs.new_tensor(self.positive)
        return binary_cross_entropy_with_logits(outputs, target.to(outputs.dtype), pos_weight=factor)


class KL(Loss):
    """Kullback-Leibler divergence from the target's shares of the classes to the softmax: sum of t log(t/p).

    A class number is all of one share, which makes it the cross-entropy.
    """

    tasks: ClassVar[tuple[str, ...]] = ("classification",)

    def __call__(self, outputs: Tensor, target: Tensor) -> Tensor:
        """See `Loss`."""
        from torch.nn.functional import cross_entropy, kl_div, log_softmax

        if not target.is_floating_point():
            return cross_entropy(outputs, target)
        return kl_div(log_softmax(outputs, 1), target, reduction="none").sum(1).mean()
