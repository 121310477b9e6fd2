"""Learning from other models: distillation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnopt_cli import NnoptError, load

if TYPE_CHECKING:
    from torch import Tensor, nn

    from nnopt_cli import Model
    from nnopt_cli.data import Batch, Data, Task


class Teachers:
    """One or several models whose mean answer is a second target.

    classes: T^2 * KL(mean of softmax(teacher / T) || softmax(outputs / T)); labels: the same with sigmoids;
    values: the mean squared difference. Added to the loss as weight * this + (1 - weight) * loss.

    Hinton et al. 2015, arXiv:1503.02531, section 2.
    """

    def __init__(self, modules: Sequence[nn.Module], task: Task, temperature: float, weight: float) -> None:
        self._modules = modules
        self._task = task
        self._temperature = temperature
        self.weight = weight

    def loss(self, batch: Batch, outputs: Tensor, fixed: int | None) -> Tensor:
        """How far `outputs` are from what the teachers say of `batch`."""
        import torch
        from torch.nn import functional

        from nnopt_cli.data import answer

        with torch.no_grad():
            said = [answer(module, batch, fixed).float() for module in self._modules]
        heat = self._temperature
        if self._task.kind == "regression":
            return functional.mse_loss(outputs, torch.stack(said).mean(0).reshape(outputs.shape))
        if self._task.kind == "multi-label":
            wanted = torch.stack([torch.sigmoid(each / heat) for each in said]).mean(0).reshape(outputs.shape)
            soft = functional.binary_cross_entropy_with_logits(outputs / heat, wanted)
            return heat**2 * soft
        if outputs.shape != said[0].shape:  # the classes were moved to dimension 1
            said = [each.movedim(-1, 1) for each in said]
        wanted = torch.stack([torch.softmax(each / heat, 1) for each in said]).mean(0)
        log = torch.log_softmax(outputs / heat, 1)
        samples = outputs.numel() // outputs.shape[1]
        return heat**2 * functional.kl_div(log, wanted, reduction="sum") / samples


def open_teachers(
    paths: Sequence[Path], model: Model, data: Data, outputs: Tensor, device: str
) -> list[nn.Module]:
    """The teachers, in evaluation mode, on `device`.

    Args:
        paths: `.pt2` files, or weights for the architecture of `model`.
        model: what learns.
        data: what they are tried on.
        outputs: what `model` answers to their first samples.

    Raises NnoptError: one cannot be computed, or answers something of another shape or kind.
    """
    from nnopt_cli.data import answer

    batches, found = data.plain, []
    for path in paths:
        teacher: Any = load(path)
        if teacher.rung == "weights":
            if model.arch is None:
                raise NnoptError(
                    f"--teacher {path}: holds weights only, and nothing says how they are computed",
                    "Give a .pt2, which `nnopt convert` writes, or add --arch.",
                )
            teacher = replace(teacher, arch=model.arch)
        module = teacher.trainable().requires_grad_(False)
        batch = batches.first(len(outputs))
        try:
            said = answer(module, batch, batches.assembly.expected.batch)
        except Exception as error:
            raise NnoptError(f"--teacher {path}: does not take the data: {error}") from error
        if said.shape != outputs.shape:
            raise NnoptError(
                f"--teacher {path}: answers {list(said.shape)}, and the model {list(outputs.shape)}",
                "A teacher has the same classes as the model that learns from it.",
            )
        if data.task.kind == "classification" and _are_shares(said):
            raise NnoptError(
                f"--teacher {path}: answers probabilities, and what is softened are logits",
                "Give the network without its last softmax.",
            )
        found.append(module if device == "cpu" else teacher.trainable(device).requires_grad_(False))
    return found


def _are_shares(said: Tensor) -> bool:
    """Whether all answers lie between 0 and 1 and those of a sample add up to 1."""
    import torch

    sums = said.float().sum(1)
    return bool((said >= 0).all()) and torch.allclose(sums, torch.ones_like(sums), atol=1e-3)
