"""`Weight`: one tensor of a checkpoint, read lazily, in chunks, without memory-mapping.

Chunks are read with `preadv` into buffers that the caller owns, so resident memory stays flat
however large the tensor is, and the input file is never mapped (saving over a mapped file kills
the process with SIGBUS).
"""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from nnopt_cli.errors import NnoptError, UnreadableError
from nnopt_cli.formats.dtypes import DType

if TYPE_CHECKING:
    import torch as th
    from blake3 import blake3

Array = npt.NDArray[Any]
Tap = Callable[[Array], object]  # sees the words of the input file, before any edit, in order

CHUNK_BYTES = 1 << 21  # stays in cache, and threads rarely meet at the interpreter's lock


class ChunkEdit(Protocol):
    """A change to a tensor that can be made chunk by chunk, each on its own."""

    unit: int  # chunks start at, and hold, whole multiples of this many elements (or reach the end)

    def __call__(self, words: Array, start: int) -> None:
        """Change in place `words` (1-D, raw words), the elements from flat index `start` on.

        Called from several threads at once; a chunk's result may depend on nothing but the chunk.
        """


class Weight(ABC):
    """One named tensor, row-major. Names that share one `Weight` object are tied.

    Attributes:
        name: its name in the model (without a container's `module.` prefix).
        dtype: its element type.
        shape: its dimensions.
        pure: whether reading it leaves no trace, so that another process can do it as well.
        digests: where it is merged from several, hashes of all but the first, from its last reading.
    """

    pure: bool = False
    digests: Sequence[blake3] = ()

    def __init__(self, name: str, dtype: DType, shape: tuple[int, ...]) -> None:
        self.name = name
        self.dtype = dtype
        self.shape = shape

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the elements, without padding."""
        return self.numel * self.dtype.itemsize

    @property
    def unit(self) -> int:
        """Reads must start at, and hold, whole multiples of this many elements, or reach the end."""
        return 1

    @property
    def origin(self) -> Weight:
        """The weight as it was read, below all edits."""
        return self

    @abstractmethod
    def read_into(self, out: Array, start: int, tap: Tap | None = None) -> None:
        """Fill `out` (1-D, dtype `self.dtype.word`) with the elements from flat index `start` on.

        `tap`, if given, is called with the words as the input holds them, before any edit.
        Raises UnreadableError if the file ends early.
        """

    def view(self, start: int, count: int) -> Array | None:
        """`count` words from `start` on without copying, or None where they are not in memory."""
        return None

    def chunk(self, start: int, count: int, buffer: Array) -> Array:
        """`count` words from `start` on, to be read only: a view if possible, else in `buffer`."""
        seen = self.view(start, count)
        if seen is None:
            seen = buffer[:count]
            self.read_into(seen, start)
        return seen

    def spans(self, unit: int = 1, chunk_bytes: int = CHUNK_BYTES) -> Iterator[tuple[int, int]]:
        """Cut the flat tensor into `(start, count)` spans of whole `unit`s, about `chunk_bytes` each."""
        unit = math.lcm(unit, self.unit)
        step = max(1, chunk_bytes // (unit * self.dtype.itemsize)) * unit
        for start in range(0, self.numel, step):
            yield start, min(step, self.numel - start)

    def words(self) -> Array:
        """The whole tensor as raw words, with its shape, in memory of its own."""
        out = np.empty(self.numel, self.dtype.word)
        for start, count in self.spans():
            self.read_into(out[start : start + count], start)
        return out.reshape(self.shape)

    def torch(self) -> th.Tensor:
        """The whole tensor as a torch tensor on the CPU, in memory of its own."""
        import torch

        dtype = getattr(torch, self.dtype.name)
        raw = torch.from_numpy(self.words().reshape(-1).view(np.uint8))
        return raw.view(dtype).reshape(self.shape) if self.numel else torch.empty(self.shape, dtype=dtype)

    def edited(self, edit: ChunkEdit) -> Weight:
        """The same weight with `edit` applied whenever it is read. Nothing is computed now."""
        return EditedWeight(self, edit)

    def mapped(self, fn: Callable[[str, th.Tensor], th.Tensor]) -> Weight:
        """The same weight with `fn(name, tensor)` in its place, computed when it is read."""
        return MappedWeight(self, fn)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {self.dtype}, {list(self.shape)})"


class InputFile:
    """An input opened once for positioned reads, shared by all the weights in it; closes when dropped."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.fd = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        except OSError as error:
            raise UnreadableError(f"{path}: {error.strerror}") from error
        self.size = os.fstat(self.fd).st_size

    def read_into(self, out: memoryview, offset: int) -> None:
        """Fill `out` from byte `offset`. Raises UnreadableError if the file ends first."""
        done = 0
        while done < len(out):
            got = os.preadv(self.fd, [out[done:]], offset + done)
            if got == 0:
                raise UnreadableError(
                    f"{self.path}: the file ends at byte {offset + done}, inside a tensor's data",
                    "It was truncated, or changed while it was read.",
                )
            done += got

    def read(self, offset: int, count: int) -> bytes:
        """At most `count` bytes from `offset` on; fewer at the end of the file."""
        return os.pread(self.fd, count, offset)

    def __del__(self) -> None:
        if hasattr(self, "fd"):
            os.close(self.fd)


class FileWeight(Weight):
    """A tensor whose elements lie in a row in a file, row-major, little-endian."""

    pure = True

    def __init__(self, name: str, dtype: DType, shape: tuple[int, ...], file: InputFile, offset: int) -> None:
        super().__init__(name, dtype, shape)
        self.file = file
        self.offset = offset

    def read_into(self, out: Array, start: int, tap: Tap | None = None) -> None:
        self.file.read_into(out.data.cast("B"), self.offset + start * self.dtype.itemsize)
        if tap is not None:
            tap(out)


class MemoryWeight(Weight):
    """A tensor that is already in memory, as an array of words."""

    def __init__(self, name: str, dtype: DType, words: Array) -> None:
        super().__init__(name, dtype, words.shape)
        self._flat = np.ascontiguousarray(words).reshape(-1)

    @classmethod
    def of(cls, name: str, tensor: th.Tensor | Array) -> MemoryWeight:
        """Wrap a torch tensor or a numpy array; shares its memory where it is contiguous on the CPU."""
        from nnopt_cli.formats.dtypes import dtype_named

        if isinstance(tensor, np.ndarray):
            dtype = dtype_named(tensor.dtype.name)
            return cls(name, dtype, tensor.view(dtype.word))
        import torch

        dtype = dtype_named(str(tensor.dtype).removeprefix("torch."))
        # A dimension of size 1 may have any stride, even in a contiguous tensor; a view as bytes minds it.
        flat = tensor.detach().cpu().contiguous().as_strided((tensor.numel(),), (1,))
        raw = flat.view(torch.uint8).numpy() if flat.numel() else np.empty(0, np.uint8)
        return cls(name, dtype, raw.view(dtype.word).reshape(tuple(tensor.shape)))

    def view(self, start: int, count: int) -> Array | None:
        return self._flat[start : start + count]

    def read_into(self, out: Array, start: int, tap: Tap | None = None) -> None:
        out[:] = self._flat[start : start + len(out)]
        if tap is not None:
            tap(out)


class EditedWeight(Weight):
    """A weight with a `ChunkEdit` on top; edits stack."""

    def __init__(self, parent: Weight, edit: ChunkEdit) -> None:
        super().__init__(parent.name, parent.dtype, parent.shape)
        self._parent = parent
        self._edit = edit

    @property
    def unit(self) -> int:
        return min(math.lcm(self._parent.unit, self._edit.unit), max(1, self.numel))

    @property
    def origin(self) -> Weight:
        return self._parent.origin

    def read_into(self, out: Array, start: int, tap: Tap | None = None) -> None:
        self._parent.read_into(out, start, tap)
        self._edit(out, start)


class MappedWeight(Weight):
    """A weight replaced by a function of the whole tensor; one chunk, so one tensor in memory."""

    def __init__(self, parent: Weight, fn: Callable[[str, th.Tensor], th.Tensor]) -> None:
        super().__init__(parent.name, parent.dtype, parent.shape)
        self._parent = parent
        self._fn = fn

    @property
    def unit(self) -> int:
        return max(1, self.numel)

    @property
    def origin(self) -> Weight:
        return self._parent.origin

    def read_into(self, out: Array, start: int, tap: Tap | None = None) -> None:
        self._parent.read_into(out, start, tap)
        before = MemoryWeight(self.name, self.dtype, out.reshape(self.shape)).torch()
        after = self._fn(self.name, before)
        if not isinstance(after, type(before)):
            raise NnoptError(
                f"{self.name}: the pass made {type(after).__name__} out of it, not a tensor",
                "The function given to map() has to return the new tensor.",
            )
        if tuple(after.shape) != self.shape or after.dtype != before.dtype:
            raise NnoptError(
                f"{self.name}: the pass made {after.dtype} {list(after.shape)} out of "
                f"{before.dtype} {list(self.shape)}",
                "A pass on bare weights keeps shapes and dtypes.",
            )
        MemoryWeight.of(self.name, after).read_into(out, 0)
