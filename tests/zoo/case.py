"""What a zoo case is, and how it becomes an exported program."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from inspect import Parameter
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

Inputs = Callable[[int], tuple[Tensor, ...]]


@dataclass(frozen=True)
class Case:
    """One architecture with random weights.

    Attributes:
        name: how tests and tables call it.
        family: `hand`, `torchvision` or `transformers`.
        build: makes the network; nothing is downloaded.
        inputs: batch size -> example inputs in float32 or int64, batch first, the same at every call.
        most: the largest share of parameters that may stay when half of every group's units go.
        needs: the package that `build` imports, besides torch.
        static: the index of every input whose first dimension is not the batch.
        onnx: whether PyTorch's exporter has a form in ONNX for the network, dense or not.
        measured: samples on which batch norms are measured: more where few leave variances of next to
            nothing, which then blow every rounding up.
    """

    name: str
    family: str
    build: Callable[[], nn.Module]
    inputs: Inputs
    most: float = 0.7
    needs: str = ""
    static: tuple[int, ...] = ()
    onnx: bool = True
    measured: int = 4


def module(case: Case) -> nn.Module:
    """The case's network, seeded, in evaluation mode, as alive as a trained one.

    Fresh networks hide mistakes: a bias of zeros or a scale of ones is the same after any cut, and with
    untouched statistics signals fade. So batch norms measure a batch, and nothing is left constant.
    """
    torch.manual_seed(0)
    net = case.build().eval()
    norms = [m for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    with torch.no_grad():
        if any(norm.track_running_stats for norm in norms):
            for norm in norms:
                norm.train().momentum = None
            net(*case.inputs(case.measured))
            net.eval()
        for name, tensor in [*net.named_parameters(), *net.named_buffers()]:
            if tensor.is_floating_point() and tensor.numel() > 1 and _constant(tensor):
                noise = 0.2 * torch.rand_like(tensor)  # positive: a variance stays one
                tensor.add_(noise if name.endswith("running_var") else noise - 0.1)
    return net


def _constant(tensor: Tensor) -> bool:
    return bool((tensor == tensor.flatten()[0]).all())


def export(case: Case) -> ExportedProgram:
    """Export the case's network at batch 2 with a dynamic batch. Nothing is kept on disk."""
    net, inputs = module(case), case.inputs(2)
    shapes: object = tuple(None if i in case.static else {0: Dim.DYNAMIC} for i in range(len(inputs)))
    kinds = [parameter.kind for parameter in inspect.signature(net.forward).parameters.values()]
    return torch.export.export(
        net, inputs, dynamic_shapes=(shapes,) if Parameter.VAR_POSITIONAL in kinds else shapes
    )


def hand(cases: list[Case]) -> Callable[..., Callable[[type[nn.Module]], type[nn.Module]]]:
    """A decorator that puts hand-written networks into `cases`."""

    def case(
        name: str, inputs: Inputs, most: float = 0.45, **rest: Any
    ) -> Callable[[type[nn.Module]], type[nn.Module]]:
        def put(network: type[nn.Module]) -> type[nn.Module]:
            cases.append(Case(name, "hand", network, inputs, most, **rest))
            return network

        return put

    return case


def images(*shape: int) -> Inputs:
    """Inputs of normal noise: `images(3, 32, 32)` gives one tensor (batch, 3, 32, 32)."""
    seed = sum(shape)
    return lambda batch: (torch.randn(batch, *shape, generator=torch.Generator().manual_seed(seed + batch)),)


def tokens(vocabulary: int, length: int, count: int = 1) -> Inputs:
    """`count` inputs of token numbers (batch, length)."""

    def make(batch: int) -> tuple[Tensor, ...]:
        seeded = torch.Generator().manual_seed(batch)
        return tuple(torch.randint(0, vocabulary, (batch, length), generator=seeded) for _ in range(count))

    return make


def together(*parts: Inputs) -> Inputs:
    """Several inputs side by side."""
    return lambda batch: tuple(tensor for i, part in enumerate(parts) for tensor in _apart(part(batch), i))


def _apart(tensors: tuple[Tensor, ...], place: int) -> tuple[Tensor, ...]:
    """The same inputs in two places would make a comparison of them trivial."""
    return tuple(t.roll(place, -1) for t in tensors)
