"""One optimizer step: forward, loss, penalties, backward, clipping, masks; Accelerate knows the devices."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nnopt_cli import NnoptError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from nnopt_cli import Optimizer, Regularizer
    from nnopt_cli.data import Batch, Data
    from nnopt_cli.graph import Layer
    from nnopt_plugins.finetune.gradients import Gradients
    from nnopt_plugins.finetune.masks import Masks
    from nnopt_plugins.finetune.teachers import Teachers


@dataclass
class Stepper:
    """What a step is made of.

    Attributes:
        module: the network, on `device`.
        call: what computes it in training: the network itself, or compiled.
        layers: its parameters.
        data: task and loss.
        optimizer: the component.
        lr: the base learning rate.
        regularizers: added to the loss.
        teachers: whose answers are learnt from, too.
        masks: which weights stay zero.
        clip: the largest norm of all gradients together; None for any.
        precision: `fp32`, or `bf16` or `fp16` by autocast.
        device: where it is computed.
    """

    module: nn.Module
    call: Callable[..., Any]
    layers: Sequence[Layer]
    data: Data
    optimizer: Optimizer
    lr: float
    regularizers: Sequence[Regularizer]
    teachers: Teachers | None
    masks: Masks
    clip: float | None
    precision: str
    device: str

    def __post_init__(self) -> None:
        from nnopt_cli.graph import parameter_groups

        self.full_batch = self.optimizer.full_batch
        self.parameters = [layer.parameter for layer in self.layers]
        made = self.optimizer.build(parameter_groups(self.layers), self.lr)
        self.accelerator = _accelerator(self.precision, self.device)
        self.steps: Any = self.accelerator.prepare_optimizer(made, device_placement=False)
        self.fixed = self.data.train.assembly.expected.batch

    def step(
        self, batches: Sequence[Batch] | Callable[[], Iterator[Batch]], rate: float, look: Gradients | None
    ) -> tuple[Any, int]:
        """Change the weights once.

        Args:
            batches: whose mean gradient is followed; a function that gives them anew where all data are.
            rate: the learning rate.
            look: sees the gradients, if wanted.

        Returns:
            The mean loss before the step (a scalar tensor, penalties included), and the number of samples.
        """
        for group in self.steps.param_groups:
            group["lr"] = rate
        if callable(batches):
            loss, samples = self._over_all(batches, rate, look)
        else:
            loss, samples = self._gradients(batches)
            if not self._finite(loss):
                return loss, samples  # the weights stay as they are
            self._change(rate, look)
        self.masks.apply()
        self.steps.zero_grad(set_to_none=True)
        return loss, samples

    def _finite(self, loss: Tensor) -> bool:
        """Whether a loss is a number; on a GPU nobody waits to see."""
        return self.device != "cpu" or bool(loss.isfinite())

    def _change(self, rate: float, look: Gradients | None) -> None:
        if self.clip is not None:
            if look is not None:
                self.accelerator.unscale_gradients(self.steps)
                look.look()
            self.accelerator.clip_grad_norm_(self.parameters, self.clip)
        elif look is not None:
            self.accelerator.unscale_gradients(self.steps)
            look.look()
        for regularizer in self.regularizers:
            regularizer.before_step(self.layers, rate)
        try:
            self.steps.step()
        except RuntimeError as error:  # of a foreign class: it is for sparse gradients, or wants a closure
            said = str(error).split("\n", 1)[0]
            raise NnoptError(f"the optimizer {self.optimizer.spec()!r} cannot take a step: {said}") from error

    def _over_all(
        self, batches: Callable[[], Iterator[Batch]], rate: float, look: Gradients | None
    ) -> tuple[Any, int]:
        """A step by all the data; an optimizer that asks again gets gradients again."""
        first: list[tuple[Any, int]] = []

        def closure() -> Any:
            self.steps.zero_grad(set_to_none=True)
            loss, samples = self._gradients(batches())
            first.append((loss, samples))
            return loss

        if self.optimizer.closure:
            for regularizer in self.regularizers:
                regularizer.before_step(self.layers, rate)
            self.steps.step(closure)
        else:
            closure()
            if self._finite(first[0][0]):
                self._change(rate, look)
        return first[0]

    def _gradients(self, batches: Sequence[Batch] | Iterator[Batch]) -> tuple[Any, int]:
        """Leave the gradient of the mean loss in the parameters; gives that loss and the samples."""
        import torch

        if isinstance(batches, Sequence) and len(batches) == 1:
            loss = self._loss(batches[0]) + self._penalty()
            self._backward(loss)
            return loss.detach(), batches[0].size
        total: Any = 0.0
        samples = 0
        for batch in batches:
            loss = self._loss(batch) * batch.size
            self._backward(loss)
            total = total + loss.detach()
            samples += batch.size
        if not samples:
            raise NnoptError(f"{self.data.train.source.origin}: there is no data")
        with torch.no_grad():
            found = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
            torch._foreach_mul_(found, 1 / samples)
        penalty = self._penalty()
        if isinstance(penalty, torch.Tensor):
            if penalty.requires_grad:
                self._backward(penalty)
            penalty = penalty.detach()
        return total / samples + penalty, samples

    def _backward(self, loss: Tensor) -> None:
        if not loss.requires_grad:
            raise NnoptError(
                "no gradient reaches any weight: the loss does not depend on what can be trained",
                "A network whose parameters are all frozen, or that detaches its output, cannot learn.",
            )
        self.accelerator.backward(loss)

    def _penalty(self) -> Any:
        if not self.regularizers:
            return 0.0
        return sum(regularizer.penalty(self.layers) for regularizer in self.regularizers)

    def _loss(self, batch: Batch) -> Tensor:
        """The mean loss of a batch. Raises NnoptError where output and loss do not fit."""
        from nnopt_cli.data import aligned, answer

        try:
            with self.accelerator.autocast():
                outputs = answer(self.call, batch, self.fixed)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise NnoptError(
                "a batch norm takes its statistics from a single value: the batch is too small to train on",
                "Give a larger --batch-size, at least 2.",
            ) from error
        outputs, target = aligned(outputs, batch.target, self.data.task)
        try:
            loss = self.data.loss(outputs, target)
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            said = str(error).split("\n", 1)[0]
            raise NnoptError(
                f"the loss does not take outputs {list(outputs.shape)} with targets {list(target.shape)}: "
                f"{said}",
                "--loss names another, --task what is to be learnt, --y the column of the target.",
            ) from error
        if loss.dim():
            raise NnoptError(f"the loss gives {list(loss.shape)}, and training takes a single number")
        if self.teachers is None:
            return loss
        share = self.teachers.weight
        return (1 - share) * loss + share * self.teachers.loss(batch, outputs, self.fixed)

    def state(self) -> dict[str, Any]:
        """Of the optimizer, and of the scale of fp16's gradients."""
        scaler = self.accelerator.scaler
        return {
            "optimizer": self.steps.state_dict(),
            "scaler": None if scaler is None else scaler.state_dict(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Put it back, tensors in the order in memory of the parameters that they belong to."""
        import torch

        self.steps.load_state_dict(state["optimizer"])
        for parameter, held in self.steps.state.items():
            for key, value in held.items():
                if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                    held[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value).detach()
        if state["scaler"] is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])


def compiled(module: nn.Module) -> Callable[..., Any]:
    """The same, compiled when it is first called; that raises NnoptError where it cannot be done."""
    import torch
    from torch._dynamo.exc import TorchDynamoException

    made = torch.compile(module)

    def call(*args: Any, **named: Any) -> Any:
        try:
            return made(*args, **named)
        except TorchDynamoException as error:
            said = str(error).strip().split("\n", 1)[0]
            raise NnoptError(
                f"--compile: the network cannot be compiled here: {said}",
                "It takes a C++ compiler such as g++. Without --compile the network is trained as it is.",
            ) from error

    return call


def named_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, tied ones once."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _accelerator(precision: str, device: str) -> Any:
    """Accelerate's, new for this training: it remembers the settings of the one before."""
    from accelerate import Accelerator  # type: ignore[import-untyped]
    from accelerate.state import AcceleratorState  # type: ignore[import-untyped]

    AcceleratorState._reset_state(reset_partial_state=True)
    mixed = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}[precision]
    return Accelerator(cpu=device == "cpu", mixed_precision=mixed)
