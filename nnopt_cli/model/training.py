"""A model as a module that can be trained, and back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nnopt_cli.errors import NnoptError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from nnopt_cli.model.arch import Architecture
    from nnopt_cli.model.inputs import InputSpec
    from nnopt_cli.model.model import Model


def trainable(model: Model, device: str = "cpu") -> nn.Module:
    """See `Model.trainable`."""
    model.require("module")
    if model.arch is not None:
        return model.module().to(device)
    from nnopt_cli.graph.modes import trainable as from_program

    return from_program(model.program(), device)


def trained(model: Model, module: nn.Module) -> Model:
    """See `Model.trained`."""
    from nnopt_cli.model.fit import match_names, named_tensors

    tensors = named_tensors(module)
    spec = model.arch.spec if model.arch else ""
    if model.arch is None:
        names = {name: name for name in tensors if name in model.weights}
    else:
        names = dict(match_names(module, tensors, model.weights, spec, resize=True).names)
    first = {id(weight): name for name, weight in model.unique().items()}
    values: dict[str, Tensor] = {}
    for name, ours in names.items():
        weight = model.weights[ours]
        if tuple(tensors[name].shape) != weight.shape:
            raise NnoptError(f"{name}: training changed its shape from {list(weight.shape)}")
        values.setdefault(first[id(weight)], tensors[name])
    return model.map(lambda name, old: values[name].detach().to("cpu", old.dtype).contiguous(), values)


def untrained(arch: Architecture, inputs: InputSpec | None = None) -> Model:
    """A model of what `arch` builds, with the weights that it comes with; no file stands behind it."""
    from nnopt_cli.formats.checkpoint import Container
    from nnopt_cli.formats.weight import MemoryWeight, Weight
    from nnopt_cli.graph.coupling import identity
    from nnopt_cli.model.fit import named_tensors
    from nnopt_cli.model.graph_source import ModuleGraph
    from nnopt_cli.model.model import Model as NewModel

    made: dict[object, Weight] = {}
    weights: dict[str, Weight] = {}
    for name, tensor in named_tensors(arch.build()).items():
        place = identity(tensor)
        made.setdefault(place, MemoryWeight.of(name, tensor))
        weights[name] = made[place]
    if not weights:
        raise NnoptError(f"--arch {arch.spec}: the network has no weights to train")
    container = Container(Path(arch.spec), "torch", ())
    return NewModel(
        weights, container, arch=arch, graph=ModuleGraph(arch, inputs) if inputs is not None else None
    )
