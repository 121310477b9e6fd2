"""`InputSpec`: what a model is fed, as `--input` writes it: names, element types, shapes, ranges.

3x224x224                      float images; the batch stands before it and may vary
float32[N,3,H:64..512,32*W]    a whole shape: names are sizes that may vary, here W in steps of 32
ids=int64[N,16]<30522          passed by keyword; values from 0 to 30521
ids=int64[N,T]; mask=int64[N,T]<2
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from nnopt_cli.errors import UsageError
from nnopt_cli.formats.dtypes import DTYPES
from nnopt_cli.model.naming import suggest

if TYPE_CHECKING:
    import torch

_FORMS = "Write 3x224x224, or a whole shape such as float32[N,3,224,224] or ids=int64[N,16]<30522."
_ONE = re.compile(
    r"(?:(?P<name>[A-Za-z_]\w*)\s*=\s*)?"
    r"(?:(?P<dtype>[A-Za-z]\w*)?\[(?P<dims>[^\[\]]*)\]|(?P<short>\w+))(?:\s*<\s*(?P<below>\d+))?"
)
_DIM = re.compile(
    r"(?:(?P<size>\d+)|(?:(?P<factor>\d+)\s*\*\s*)?(?P<name>[A-Za-z_]\w*)"
    r"(?:\s*:\s*(?P<low>\d+)?\s*\.\.\s*(?P<high>\d+)?)?)"
)
BATCH = "N"


@dataclass(frozen=True)
class Dim:
    """A size that may vary: `factor` times a number called `name` that lies between `low` and `high`.

    Two dimensions of one name vary together. `offset` is added; no `--input` has one, a graph may.
    """

    name: str
    low: int = 1
    high: int | None = None
    factor: int = 1
    offset: int = 0

    def __str__(self) -> str:
        text = f"{self.factor}*{self.name}" if self.factor != 1 else self.name
        text += f"+{self.offset}" if self.offset else ""
        bounded = self.low > 1 or self.high is not None
        return f"{text}:{self.low}..{'' if self.high is None else self.high}" if bounded else text


@dataclass(frozen=True)
class Input:
    """One tensor that the model is fed.

    Attributes:
        name: the argument of `forward` that it is passed as; empty for one passed by position.
        dtype: torch's name; empty for the floating type of the model's own weights.
        shape: sizes, and `Dim`s where they may vary.
        below: example values of an integer input are from 0 to `below` - 1.
    """

    name: str
    dtype: str
    shape: tuple[int | Dim, ...]
    below: int = 2  # 0 and 1 are valid as almost everything: token, mask, class

    def __str__(self) -> str:
        text = f"{self.name}=" if self.name else ""
        text += f"{self.dtype}[{','.join(map(str, self.shape))}]"
        return text + (f"<{self.below}" if self.below != 2 else "")


@dataclass(frozen=True)
class InputSpec:
    """Everything that the model is fed, in order."""

    inputs: tuple[Input, ...]

    def __str__(self) -> str:
        return "; ".join(map(str, self.inputs))

    @classmethod
    def parse(cls, texts: str | Sequence[str]) -> InputSpec:
        """Read one or more `--input`; several inputs in one text are separated by `;`.

        Raises UsageError that shows what is wrong, and how to write it.
        """
        parts = [part for text in ([texts] if isinstance(texts, str) else texts) for part in text.split(";")]
        inputs = tuple(_one(part.strip()) for part in parts if part.strip())
        if not inputs:
            raise UsageError(f"--input {texts!r}: says nothing", _FORMS)
        names = [each.name for each in inputs if each.name]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise UsageError(f"--input: {twice!r} is given twice")
        return cls(_agreed(inputs))

    def sizes(self, batch: int | None = None) -> dict[str, int]:
        """Example values for the names of the sizes that vary, all different where the ranges allow.

        `batch` is the value for the first dimension of the first input that varies there; 2 by default.
        """
        leading = self.batch
        out: dict[str, int] = {}
        for dim in self._dims():
            wanted = (batch or 2) if dim.name == leading else max(2, 32 // dim.factor) + 3 * len(out)
            high = wanted if dim.high is None else dim.high
            if dim.name not in out:
                out[dim.name] = max(dim.low, min(wanted, high))
        return out

    @property
    def batch(self) -> str | None:
        """The name of the batch size; None where it is fixed."""
        leading = (each.shape[0] for each in self.inputs if each.shape)
        return next((dim.name for dim in leading if isinstance(dim, Dim)), None)

    def example(
        self, batch: int | None = None, *, seed: int = 0, dtype: str = "float32"
    ) -> tuple[tuple[torch.Tensor, ...], dict[str, torch.Tensor]]:
        """Positional and keyword tensors that fit: normal noise, or uniform integers.

        Args:
            batch: the batch size, where it may vary.
            seed: of the values.
            dtype: the floating type of inputs that name none.
        """
        drawn = self.tensors(batch, seed=seed, dtype=dtype)
        pairs = list(zip(self.inputs, drawn, strict=True))
        return tuple(t for i, t in pairs if not i.name), {i.name: t for i, t in pairs if i.name}

    def tensors(
        self, batch: int | None = None, *, seed: int = 0, dtype: str = "float32"
    ) -> list[torch.Tensor]:
        """The same as one list, in the order of `inputs`."""
        import torch

        sizes = self.sizes(batch)
        generator = torch.Generator().manual_seed(seed)
        out = []
        for each in self.inputs:
            shape = [_size(dim, sizes) for dim in each.shape]
            kind = getattr(torch, each.dtype or dtype)
            if kind.is_floating_point or kind.is_complex:
                wide = torch.complex64 if kind.is_complex else torch.float32
                out.append(torch.randn(shape, generator=generator, dtype=wide).to(kind))
            else:
                below = 2 if kind == torch.bool else each.below
                out.append(torch.randint(0, below, shape, generator=generator).to(kind))
        return out

    def dynamic_shapes(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """For `torch.export`: which dimensions may vary, of the positional and of the keyword inputs."""
        import torch

        def hints(each: Input) -> dict[int, Any]:
            hint = torch.export.Dim.DYNAMIC
            out = {}
            for axis, dim in enumerate(each.shape):
                if isinstance(dim, Dim):
                    low = dim.low * dim.factor if dim.low > 1 else None
                    high = dim.high * dim.factor if dim.high is not None else None
                    out[axis] = hint if low is None and high is None else hint(min=low, max=high)
            return out

        positional = tuple(hints(each) for each in self.inputs if not each.name)
        return positional, {each.name: hints(each) for each in self.inputs if each.name}

    def _dims(self) -> Iterator[Dim]:
        return (dim for each in self.inputs for dim in each.shape if isinstance(dim, Dim))


def _size(dim: int | Dim, sizes: dict[str, int]) -> int:
    return dim if isinstance(dim, int) else sizes[dim.name] * dim.factor + dim.offset


def _one(text: str) -> Input:
    found = _ONE.fullmatch(text)
    if not found:
        raise UsageError(f"--input {text!r}: not understood", _FORMS)
    dtype = found["dtype"] or ""
    if dtype and dtype not in DTYPES:
        raise UsageError(
            f"--input {text!r}: there is no element type {dtype!r}", suggest(dtype, DTYPES) or _FORMS
        )
    if found["short"]:
        shape = (Dim(BATCH), *(_dim(text, part) for part in found["short"].split("x")))
    else:
        shape = tuple(_dim(text, part) for part in found["dims"].split(",") if found["dims"].strip())
    if found["below"] and not dtype.lstrip("u").startswith("int"):
        raise UsageError(f"--input {text!r}: a limit such as <{found['below']} is for integers", _FORMS)
    if found["below"] == "0":
        raise UsageError(f"--input {text!r}: no value is below 0")
    return Input(found["name"] or "", dtype, tuple(shape), int(found["below"] or 2))


def _dim(text: str, part: str) -> int | Dim:
    found = _DIM.fullmatch(part.strip())
    if not found:
        raise UsageError(f"--input {text!r}: {part.strip()!r} is not a size", _FORMS)
    if found["size"]:
        return int(found["size"])
    low, high = int(found["low"] or 1), int(found["high"]) if found["high"] else None
    if low < 1 or (high is not None and high < max(low, 2)):
        raise UsageError(f"--input {text!r}: {part.strip()!r} is a size that cannot vary")
    factor = int(found["factor"] or 1)
    if not factor:
        raise UsageError(f"--input {text!r}: {part.strip()!r} is always 0")
    return Dim(found["name"], low, high, factor)


def _agreed(inputs: tuple[Input, ...]) -> tuple[Input, ...]:
    """Give all dimensions of one name the range that any of them states."""
    ranges: dict[str, tuple[int, int | None]] = {}
    for each in inputs:
        for dim in each.shape:
            if isinstance(dim, int) or (dim.low, dim.high) == (1, None):
                continue
            if ranges.setdefault(dim.name, (dim.low, dim.high)) != (dim.low, dim.high):
                raise UsageError(f"--input: {dim.name} is given two ranges")

    def agreed(dim: int | Dim) -> int | Dim:
        if isinstance(dim, int) or dim.name not in ranges:
            return dim
        low, high = ranges[dim.name]
        return replace(dim, low=low, high=high)

    return tuple(replace(each, shape=tuple(map(agreed, each.shape))) for each in inputs)
