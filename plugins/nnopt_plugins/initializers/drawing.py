"""How a tensor of any type and device is filled from a generator of the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from nnopt_cli import NnoptError

if TYPE_CHECKING:
    from torch import Tensor


def draw(tensor: Tensor, into: Callable[[Tensor], object], rule: str = "") -> None:
    """Fill `tensor` with what `into` draws on the CPU, in 64 or 32 bits: the same for all devices and types.

    Args:
        tensor: what is overwritten.
        into: fills a contiguous tensor of the same shape.
        rule: name of a rule that needs two dimensions, for the error's text.

    Raises NnoptError where it needs them and the tensor has fewer.
    """
    import torch

    if rule and tensor.dim() < 2:
        raise NnoptError(
            f"the initializer {rule!r} needs a tensor of two or more dimensions, and this one has shape "
            f"{list(tensor.shape)}",
            "For biases and norms use uniform, normal or truncated-normal.",
        )
    dtype = torch.float64 if tensor.dtype == torch.float64 else torch.float32
    values = torch.empty(tensor.shape, dtype=dtype)
    if values.numel():
        into(values)
    with torch.no_grad():
        tensor.copy_(values)
