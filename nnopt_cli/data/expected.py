"""What a model takes, as far as it can be known, and whether a batch is that."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from nnopt_cli.errors import NnoptError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from nnopt_cli.data.batching import Batch
    from nnopt_cli.model.inputs import Input, InputSpec
    from nnopt_cli.model.model import Model


@dataclass(frozen=True)
class Expected:
    """What a model takes.

    Attributes:
        spec: every input, where the model has a graph.
        names: the arguments of `forward` of a module, in order.
        required: those of them that have no default.
        dtype: torch's name of the floating type of the weights.
        channels: of the first convolution, where no graph says more.
        tokens: whether whole numbers are looked up in a table (an embedding) rather than computed with.
        channels_last: whether it computes the same, faster, on images whose channels are last in memory.
    """

    spec: InputSpec | None = None
    names: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    dtype: str = "float32"
    channels: int | None = None
    tokens: bool = False
    channels_last: bool = False

    @classmethod
    def of(cls, model: Model, module: nn.Module) -> Expected:
        """What `model` takes; `module` is what it is computed with."""
        from torch import nn as layers

        floats = [p.dtype for p in module.parameters() if p.is_floating_point()]
        dtype = str(floats[0]).removeprefix("torch.") if floats else "float32"
        if model.inputs is not None:
            return cls(model.inputs, dtype=dtype)
        names, required = _arguments(module)
        tokens = any(isinstance(layer, layers.Embedding) for layer in module.modules())
        return cls(None, names, required, dtype, _channels(module), tokens)

    @property
    def count(self) -> int | None:
        """How many inputs, where that is known."""
        return len(self.spec.inputs) if self.spec else len(self.required) or None

    @property
    def batch(self) -> int | None:
        """The batch size, where the graph was made for a single one."""
        if self.spec is None or self.spec.batch is not None or not self.spec.inputs:
            return None
        first = self.spec.inputs[0].shape[:1]
        return int(first[0]) if first and isinstance(first[0], int) else None

    def by_name(self, columns: Sequence[str]) -> list[str]:
        """The columns that are called like the model's inputs, where these cover all it needs."""
        if self.spec:
            named = [each.name for each in self.spec.inputs]
            return named if all(name and name in columns for name in named) else []
        if any(name not in columns for name in self.required):
            return []
        found = [name for name in self.names if name in columns]
        return found if len(found) > 1 or not self.required else []  # one alone goes by position

    def of_input(self, index: int, name: str) -> Input | None:
        """What is known of one input, by its keyword or its place."""
        if self.spec is None:
            return None
        if name:
            return next((each for each in self.spec.inputs if each.name == name), None)
        return self.spec.inputs[index] if index < len(self.spec.inputs) else None

    def mode(self, index: int, name: str) -> str:
        """Pillow's mode for images that are this input: grey where the model takes one channel."""
        known = self.of_input(index, name)
        if known is not None and len(known.shape) == 4:
            return "L" if known.shape[1] == 1 else "RGB"
        return "L" if self.channels == 1 else "RGB"

    def fed(self, batch: Batch) -> Batch:
        """A batch in the floating type that the model takes, images with their channels last in memory
        where that suits it."""
        import torch

        floating = getattr(torch, self.dtype)
        wanted = [getattr(torch, each.dtype) for each in self.spec.inputs if each.dtype] if self.spec else []

        def suited(tensor: Tensor) -> Tensor:
            if tensor.is_floating_point() and tensor.dtype not in wanted:
                tensor = tensor.to(floating)
            if self.channels_last and tensor.dim() == 4:
                return tensor.contiguous(memory_format=torch.channels_last)
            return tensor.contiguous()

        kwargs = {name: suited(tensor) for name, tensor in batch.kwargs.items()}
        return replace(batch, args=tuple(suited(tensor) for tensor in batch.args), kwargs=kwargs)

    def __str__(self) -> str:
        return str(self.spec) if self.spec else ", ".join(self.required)

    def check(self, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        """Raise NnoptError where tensors differ in number, names, types or shapes from the graph's inputs."""
        if self.spec is None:
            return
        given = [("", tensor) for tensor in args] + list(kwargs.items())
        names = {each.name for each in self.spec.inputs}
        wrong = [name for name in kwargs if name not in names]
        if len(given) != len(self.spec.inputs) or wrong:
            had = ", ".join(f"{name or 'one'}: {shown(tensor)}" for name, tensor in given)
            raise NnoptError(
                f"the model takes {len(self.spec.inputs)} inputs, {self}; the data give {len(given)}: {had}",
                "Name the columns with --x, one for each input (NAME=COLUMN for one passed by name).",
            )
        sizes: dict[str, int] = {}
        for index, (name, tensor) in enumerate(given):
            want = self.of_input(index, name)
            assert want is not None
            want = replace(want, dtype=want.dtype or self.dtype)
            if why := _misfit(want, tensor, sizes):
                label = f"input {name!r}" if name else f"input {index + 1}" if len(given) > 1 else "input"
                raise NnoptError(
                    f"the data do not fit the model: its {label} is {want}, and a batch of the data is "
                    f"{shown(tensor)}: {why}",
                    _hint(want, tensor),
                )


def input_spec(batch: Batch) -> InputSpec:
    """What a model takes that is fed such batches: their shapes, with a batch size that may vary."""
    from nnopt_cli.model.inputs import BATCH, Dim, Input, InputSpec

    given = [*(("", tensor) for tensor in batch.args), *batch.kwargs.items()]
    return InputSpec(
        tuple(
            Input(name, str(tensor.dtype).removeprefix("torch."), (Dim(BATCH), *map(int, tensor.shape[1:])))
            for name, tensor in given
        )
    )


def shown(tensor: Any) -> str:
    """A tensor's type and shape, e.g. `float32[32,3,224,224]`."""
    return f"{str(tensor.dtype).removeprefix('torch.')}[{','.join(map(str, tensor.shape))}]"


def _misfit(want: Input, tensor: Any, sizes: dict[str, int]) -> str:
    import torch

    dtype = getattr(torch, want.dtype) if want.dtype else None
    if dtype is not None and tensor.dtype != dtype:
        return f"{str(tensor.dtype).removeprefix('torch.')} is not {want.dtype}"
    if len(want.shape) != tensor.dim():
        return f"it has {tensor.dim()} dimensions instead of {len(want.shape)}"
    for axis, (size, got) in enumerate(zip(want.shape, tensor.shape, strict=True)):
        if isinstance(size, int):
            if got != size and axis:  # a fixed batch is filled up
                return f"dimension {axis} is {got} instead of {size}"
            continue
        number, off = divmod(got - size.offset, size.factor)
        if off or number < size.low or (size.high is not None and number > size.high):
            return f"dimension {axis} is {got}, which is not {size}"
        if axis and sizes.setdefault(size.name, number) != number:
            return f"dimension {axis} is {got}, and {size.name} is {sizes[size.name]} elsewhere"
    return ""


def _hint(want: Input, tensor: Any) -> str | None:
    if len(want.shape) == tensor.dim() == 4:
        size = want.shape[2:]
        if all(isinstance(each, int) for each in size) and tuple(tensor.shape[2:]) != size:
            return f"For images, add --resize {size[0]}x{size[1]}."
    return None


def _arguments(module: nn.Module) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The arguments of `forward`: all, and those without a default."""
    try:
        found = inspect.signature(module.forward).parameters.values()
    except (TypeError, ValueError):
        return (), ()
    plain = [p for p in found if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    return tuple(p.name for p in plain), tuple(p.name for p in plain if p.default is p.empty)


def _channels(module: nn.Module) -> int | None:
    from torch import nn as layers

    first = next((layer for layer in module.modules() if isinstance(layer, layers.Conv2d)), None)
    return first.in_channels if first is not None else None
