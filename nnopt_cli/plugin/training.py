"""The kinds of component that training is composed of: optimizer, schedule, regularizer, initializer."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import ConfigDict

from nnopt_cli.errors import UsageError
from nnopt_cli.plugin.component import Component, option

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn, optim

    from nnopt_cli.graph import Layer


class Optimizer(Component, kind="optimizer"):
    """Changes the weights by their gradients.

    Class attributes:
        full_batch: whether a step sees all the data, once per epoch.
        closure: whether its step computes the loss anew, several times, by a function that it is given.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    full_batch: ClassVar[bool] = False
    closure: ClassVar[bool] = False

    lr: float = option(1e-3, help="Learning rate; --lr and the schedule are applied to it.", gt=0)

    @classmethod
    def adopt(cls, found: object) -> type[Component] | None:
        """An optimizer class in the form of `torch.optim`."""
        import torch

        if not (isinstance(found, type) and issubclass(found, torch.optim.Optimizer)):
            return None
        return foreign_optimizer(found)

    @abstractmethod
    def build(self, groups: list[dict[str, Any]], lr: float) -> optim.Optimizer:
        """The optimizer, ready for its first step.

        Args:
            groups: parameter groups as `torch.optim` takes them; where one holds an option, such as
                `weight_decay` 0 for norms and biases, that counts and not the component's.
            lr: the base learning rate. The loop sets `group["lr"]` before each step.
        """


class TorchOptimizer(Optimizer, kind="optimizer"):
    """An optimizer class in the form of `torch.optim`; its options are the arguments of the class."""

    target: ClassVar[Any]

    def build(self, groups: list[dict[str, Any]], lr: float) -> optim.Optimizer:
        """See `Optimizer`. Raises UsageError where the class refuses its arguments."""
        import inspect

        from torch.optim import LBFGS

        given = {name: getattr(self, name) for name in self.model_fields_set - {"lr"}}
        if "lr" in inspect.signature(self.target).parameters:
            given["lr"] = lr
        if issubclass(self.target, LBFGS):  # takes no groups
            groups = [{"params": [value for group in groups for value in group["params"]]}]
        try:
            made: optim.Optimizer = self.target(groups, **given)
        except (TypeError, ValueError) as error:
            raise UsageError(f"{self.name}: {error}") from error
        return made


def foreign_optimizer(found: type[optim.Optimizer]) -> type[Optimizer]:
    """A component that builds `found`. A step that needs a closure gets one, and sees the whole data."""
    import inspect

    from nnopt_cli.plugin.foreign import component_of

    made = component_of(TorchOptimizer, found, skip=1)
    closure = inspect.signature(found.step).parameters.get("closure")
    assert issubclass(made, TorchOptimizer)
    made.closure = made.full_batch = closure is not None and closure.default is closure.empty
    return made


class LearningRateSchedule(Component, kind="learning-rate-schedule"):
    """Says what the learning rate is multiplied by in the course of training.

    Class attributes:
        on_metric: whether it goes by the validation figure: `update` is asked after every epoch, and the
            product of both factors counts.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    on_metric: ClassVar[bool] = False

    @abstractmethod
    def factor(self, step: int, total: int, steps_per_epoch: int) -> float:
        """What the base rate is multiplied by for a step; nothing but the arguments may matter.

        Args:
            step: number of the optimizer's step, from 0 to `total` - 1.
            total: steps of the whole training, without warm-up.
            steps_per_epoch: optimizer steps in one epoch.
        """

    def update(self, state: dict[str, Any], figure: float, larger_is_better: bool) -> float:
        """The factor after an epoch whose validation figure is `figure`; by default 1.

        Args:
            state: plain data (numbers, strings) that the loop keeps and saves, empty at first.
            figure: loss or metric on the validation data.
            larger_is_better: in which direction `figure` improves.
        """
        return 1.0


class Regularizer(Component, kind="regularizer"):
    """Keeps weights small, sparse or apart. Overrides at least one of its methods; each does nothing here.

    Class attributes:
        needs_channels: whether it looks at `Layer.groups`.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    needs_channels: ClassVar[bool] = False

    def prepare(self, network: nn.Module) -> None:
        """Change the network before training begins, such as the rates of its dropout."""

    def penalty(self, layers: Sequence[Layer]) -> Tensor:
        """A scalar that is added to the loss, and that gradients flow through."""
        import torch

        return torch.zeros(())

    def before_step(self, layers: Sequence[Layer], lr: float) -> None:
        """Change weights in place right before the optimizer's step, with the rate of that step."""


class Initializer(Component, kind="initializer"):
    """Draws the weights from which training starts."""

    model_config = ConfigDict(allow_inf_nan=False)

    @abstractmethod
    def fill(self, tensor: Tensor, generator: Generator) -> None:
        """Overwrite `tensor`; fans are counted as `torch.nn.init` does.

        Args:
            tensor: floating, of any device.
            generator: of the CPU; the only source of chance.

        Raises NnoptError where the rule says nothing about a tensor of such a shape.
        """
