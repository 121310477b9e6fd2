"""Losses that are written as PyTorch's are."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, ClassVar

from nnopt_cli.errors import UsageError
from nnopt_cli.plugin.component import Component
from nnopt_cli.plugin.foreign import component_of
from nnopt_cli.plugin.kinds import Loss

if TYPE_CHECKING:
    from torch import Tensor


class ModuleLoss(Loss, kind="loss"):
    """A module class whose `forward` takes outputs and target; its options are the arguments of the class."""

    target: ClassVar[Any]

    def __call__(self, outputs: Tensor, target: Tensor) -> Tensor:
        """See `Loss`. Raises UsageError where the class refuses its arguments."""
        try:
            module = type(self).target(**_given(self))
        except (TypeError, ValueError) as error:
            raise UsageError(f"{self.name}: {error}") from error
        return _scalar(self, module.to(outputs.device)(outputs, target))


class FunctionLoss(Loss, kind="loss"):
    """A function of outputs and target; its options are the other arguments."""

    target: ClassVar[Any]

    def __call__(self, outputs: Tensor, target: Tensor) -> Tensor:
        """See `Loss`."""
        return _scalar(self, type(self).target(outputs, target, **_given(self)))


def foreign_loss(found: object) -> type[Component] | None:
    """A component that computes `found`, a module class or a function; None for anything else."""
    from torch import nn

    if isinstance(found, type) and issubclass(found, nn.Module):
        return component_of(ModuleLoss, found, skip=0)
    if inspect.isfunction(found):
        return component_of(FunctionLoss, found, skip=2)
    return None


def _given(loss: Loss) -> dict[str, Any]:
    return {name: getattr(loss, name) for name in loss.model_fields_set}


def _scalar(loss: Loss, value: Tensor) -> Tensor:
    """The loss itself. Raises UsageError where it is no single number."""
    if getattr(value, "shape", None) != ():
        got = list(value.shape) if hasattr(value, "shape") else type(value).__name__
        raise UsageError(f"{loss.name}: it gives {got}, not one number", "Return the mean over the batch.")
    return value
