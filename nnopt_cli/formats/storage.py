"""Storages of a pickled checkpoint, and the lazy tensors that lie in them.

A tensor is a view of a storage: an offset, a shape and strides, all of them claims of the file. Here they
are checked against the storage's size, and the size against the file, before anything is read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from nnopt_cli.formats.checkpoint import Leaf
from nnopt_cli.formats.dtypes import DType
from nnopt_cli.formats.inert import Global, Placeholder, Refused
from nnopt_cli.formats.weight import Array, FileWeight, InputFile, Tap, Weight

MOST_DIMENSIONS = 32  # of an array of numpy 1
_LIMIT = 1 << 62


class MemoryFile(InputFile):
    """A few bytes in memory that are read as a file is: data that a pickle held in itself."""

    def __init__(self, path: Path, data: bytes) -> None:
        self.path = path
        self.size = len(data)
        self._data = data

    def read_into(self, out: memoryview, offset: int) -> None:
        out[:] = self._data[offset : offset + len(out)]

    def read(self, offset: int, count: int) -> bytes:
        return self._data[offset : offset + count]


class StridedWeight(FileWeight):
    """A tensor whose elements lie in a file with other strides than row-major, e.g. a transposed one.

    It is read whole: its stretch of the file and a copy in row-major order are in memory at once.

    Attributes:
        strides: distance between neighbours along each dimension, in elements.
        span: elements from the first to the last one in the file.
    """

    def __init__(
        self,
        name: str,
        dtype: DType,
        shape: tuple[int, ...],
        file: InputFile,
        offset: int,
        strides: tuple[int, ...],
    ) -> None:
        super().__init__(name, dtype, shape, file, offset)
        self.strides = strides
        self.span = 1 + sum((size - 1) * step for size, step in zip(shape, strides, strict=True))

    @property
    def unit(self) -> int:
        return max(1, self.numel)

    def read_into(self, out: Array, start: int, tap: Tap | None = None) -> None:
        raw = np.empty(self.span, self.dtype.word)
        self.file.read_into(raw.data.cast("B"), self.offset)
        steps = [step * self.dtype.itemsize for step in self.strides]
        seen = np.lib.stride_tricks.as_strided(raw, self.shape, steps, writeable=False)
        out.reshape(self.shape)[...] = seen
        if tap is not None:
            tap(out)


class Storage:
    """Bytes that tensors view. Their place in the file may become known only after the pickle was read.

    Attributes:
        size: bytes, as claimed.
        itemsize: bytes per element of the type that it was saved as.
        placed: whether its place in the file is known.
    """

    def __init__(self, file: InputFile, size: int, itemsize: int, start: int | None = None) -> None:
        self.file = file
        self.size = size
        self.itemsize = itemsize
        self.placed = start is not None
        self._start = start or 0
        self._weights: dict[tuple[object, ...], FileWeight] = {}

    def place(self, start: int) -> None:
        """Say where in the file it begins."""
        self.placed = True
        self._start = start
        for weight in self._weights.values():
            weight.offset += start

    def weight(
        self, dtype: DType, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]
    ) -> FileWeight:
        """The tensor at byte `offset`; the same object for the same view, so that tied names stay tied."""
        key = (dtype.name, offset, shape, strides)
        if key not in self._weights:
            at = (self.file, self._start + offset)
            self._weights[key] = (
                FileWeight("", dtype, shape, *at)
                if strides == row_major(shape)
                else StridedWeight("", dtype, shape, *at, strides)
            )
        return self._weights[key]


class View(Placeholder):
    """A stretch of a storage with an element type: what `torch.FloatStorage` and its like become.

    Attributes:
        storage: the storage.
        dtype: its element type, or None for an untyped one and for types that are not known.
        offset: byte where it begins.
        size: bytes.
    """

    __slots__ = ("dtype", "offset", "size", "storage")

    def __init__(self, cls: Global, storage: Storage, dtype: DType | None, offset: int, size: int) -> None:
        super().__init__(cls)
        self.storage = storage
        self.dtype = dtype
        self.offset = offset
        self.size = size

    def tensor(
        self, dtype: DType, offset: int, shape: Sequence[int], strides: Sequence[int], requires_grad: bool
    ) -> Leaf | Refused:
        """The tensor that begins `offset` elements into this view; refused if it does not lie within it."""
        if len(shape) != len(strides) or len(shape) > MOST_DIMENSIONS:
            return Refused(self.cls, f"has {len(shape)} dimensions and {len(strides)} strides")
        numel, room = math.prod(shape), self.size // dtype.itemsize
        wide = math.prod(max(1, size) for size in shape) * dtype.itemsize >= _LIMIT
        if wide or min((offset, *shape, *strides)) < 0:
            return Refused(self.cls, f"has an impossible shape, {shown(shape)}")
        if numel > room:
            return Refused(
                self.cls,
                f"claims {numel} elements of a storage that holds {room} (an expanded view?)",
            )
        if numel and offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True)) >= room:
            return Refused(self.cls, f"reaches beyond its storage of {room} elements")
        weight: Weight
        if numel:
            steps = normal(shape, strides)
            weight = self.storage.weight(dtype, self.offset + offset * dtype.itemsize, tuple(shape), steps)
        else:  # empty tensors lie nowhere, so none is tied to another
            weight = FileWeight("", dtype, tuple(shape), self.storage.file, 0)
        return Leaf(weight, False, requires_grad)


def row_major(shape: Sequence[int]) -> tuple[int, ...]:
    """Strides of a row-major tensor, in elements; 0 along dimensions of size 1 (see `normal`)."""
    steps: list[int] = []
    step = 1
    for size in reversed(shape):
        steps.append(step if size != 1 else 0)
        step *= size
    return tuple(reversed(steps))


def normal(shape: Sequence[int], strides: Sequence[int]) -> tuple[int, ...]:
    """The strides with 0 along dimensions of size 1, where they mean nothing."""
    return tuple(0 if size == 1 else step for size, step in zip(shape, strides, strict=True))


def shown(shape: Sequence[int]) -> str:
    """A shape for a message, however long it claims to be."""
    text = ", ".join(str(size) if abs(size) < _LIMIT else "…" for size in shape[:8])
    return f"[{text}{', …' if len(shape) > 8 else ''}]"


def overlapping(weights: Mapping[str, Weight]) -> tuple[str, str] | None:
    """Names of two weights that are not the same and yet share bytes of their file, if any do."""
    unique = {id(weight): (name, weight) for name, weight in reversed(list(weights.items())) if weight.numel}
    spans = []
    for name, weight in unique.values():
        if isinstance(weight, FileWeight):
            count = weight.span if isinstance(weight, StridedWeight) else weight.numel
            size = count * weight.dtype.itemsize
            spans.append((id(weight.file), weight.offset, weight.offset + size, name))
    spans.sort()
    for (file, _, end, name), (next_file, start, _, next_name) in pairwise(spans):
        if file == next_file and start < end:
            return name, next_name
    return None
