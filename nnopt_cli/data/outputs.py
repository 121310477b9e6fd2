"""What a model answers: which of its outputs counts, and predictions from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nnopt_cli.errors import NnoptError

if TYPE_CHECKING:
    from torch import Tensor

    from nnopt_cli.data.batching import Batch
    from nnopt_cli.data.task import Task

_NAMES = ("logits", "out", "output", "prediction")  # of transformers, torchvision's segmentation, others


def main_output(outputs: Any) -> Tensor:
    """The tensor that losses and metrics look at: the only one, the one called `logits`, or the first.

    Raises NnoptError where there is no tensor.
    """
    import torch

    if isinstance(outputs, torch.Tensor):
        return outputs
    if isinstance(outputs, Mapping):
        chosen = next((outputs[name] for name in _NAMES if name in outputs), None)
        return main_output(next(iter(outputs.values()), None) if chosen is None else chosen)
    if isinstance(outputs, Sequence) and outputs and not isinstance(outputs, str):
        return main_output(outputs[0])
    raise NnoptError(f"the model's output is a {type(outputs).__name__}, and losses take a tensor")


def answer(call: Callable[..., Any], batch: Batch, fixed: int | None = None) -> Tensor:
    """The main output for a batch.

    Args:
        call: the module.
        batch: what it is fed.
        fixed: the only batch size that the model takes, if it takes only one; a smaller batch is filled up.
    """
    if fixed is None or batch.size == fixed:
        return main_output(batch.call(call))
    if batch.size > fixed:
        raise NnoptError(
            f"the model takes batches of {fixed}, and this one has {batch.size}",
            f"Give --batch-size {fixed}, or export the model with a batch that may vary.",
        )
    args = tuple(_filled(tensor, fixed) for tensor in batch.args)
    kwargs = {name: _filled(tensor, fixed) for name, tensor in batch.kwargs.items()}
    return main_output(call(*args, **kwargs))[: batch.size]


def _filled(tensor: Tensor, size: int) -> Tensor:
    import torch

    return torch.cat([tensor, tensor[-1:].expand(size - len(tensor), *tensor.shape[1:])])


def classes_last(outputs: Tensor, target: Tensor) -> Tensor:
    """Outputs with the classes in dimension 1, as PyTorch's losses want them (tokens have them last)."""
    if outputs.dim() > 2 and outputs.shape[:-1] == target.shape and outputs.shape[2:] != target.shape[1:]:
        return outputs.movedim(-1, 1)
    return outputs


def predict(outputs: Tensor, task: Task) -> Tensor:
    """What is said: a class, labels (0 or 1), or the values themselves."""
    if task.kind == "classification":
        return outputs.argmax(1)
    return (outputs > 0).to(outputs.dtype) if task.kind == "multi-label" else outputs
