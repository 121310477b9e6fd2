"""`Table`: rows that can be read in any order, column by column, without holding what they decode to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from nnopt_cli.errors import NnoptError

Array = npt.NDArray[Any]
Rows = npt.NDArray[np.int64]
Kind = Literal["numbers", "images", "lists", "texts"]
SMALL = 4096  # bytes of an image file that takes about as long to look at as to decode


class Column(ABC):
    """A value for every row.

    Class attributes:
        kind: `numbers` (an array per row, all of one shape), `images` (encoded files), `lists` (numbers,
            as many as the row has), or `texts`.
    """

    kind: ClassVar[Kind]

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def take(self, rows: Rows) -> Any:
        """The values of `rows`, in that order; called from several threads at once."""


class Numbers(Column):
    """Numbers in memory: one row is `values[row]`."""

    kind = "numbers"

    def __init__(self, values: Array) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one row."""
        return tuple(self.values.shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the numbers."""
        return self.values.dtype

    def take(self, rows: Rows) -> Array:
        """An array of shape rows x one row's shape, in memory of its own."""
        return self.values[rows]


class Texts(Column):
    """Strings."""

    kind = "texts"

    def __init__(self, values: Sequence[str]) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def take(self, rows: Rows) -> list[str]:
        """The strings."""
        return [self.values[row] for row in rows]


class Lists(Column):
    """Rows of numbers of different lengths, such as tokens: row i is `values[starts[i]:starts[i + 1]]`."""

    kind = "lists"

    def __init__(self, values: Array, starts: Array) -> None:
        self.values = values
        self.starts = starts

    def __len__(self) -> int:
        return len(self.starts) - 1

    def take(self, rows: Rows) -> list[Array]:
        """One array per row."""
        return [self.values[self.starts[row] : self.starts[row + 1]] for row in rows]


class Images(Column):
    """Images as the bytes of their files (JPEG, PNG, …), row i in `data[starts[i]:starts[i + 1]]`."""

    kind = "images"

    def __init__(self, data: memoryview, starts: Array, names: Sequence[str] | None = None) -> None:
        self._data = data
        self._starts = starts
        self._names = names

    def __len__(self) -> int:
        return len(self._starts) - 1

    def take(self, rows: Rows) -> list[bytes | memoryview]:
        """The encoded images, not copied."""
        return [self._data[self._starts[row] : self._starts[row + 1]] for row in rows]

    @property
    def typical_bytes(self) -> int:
        """About how large the file of an image is."""
        return len(self._data) // max(1, len(self))

    def named(self, row: int) -> str:
        """What a message calls the image of a row."""
        name = self._names[row] if self._names is not None else ""
        return f"row {row} ({name})" if name else f"row {row}"


class Files(Images):
    """Images in files of their own, read when they are taken."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, rows: Rows) -> list[bytes | memoryview]:
        """The files' bytes; empty for one that cannot be read."""
        return [_read(self.paths[row]) for row in rows]

    @property
    def typical_bytes(self) -> int:
        """Of the first one."""
        return len(_read(self.paths[0])) if self.paths else 0

    def named(self, row: int) -> str:
        """The path."""
        return str(self.paths[row])


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""  # then it is no image, and reported like any other broken one


@dataclass(frozen=True)
class Table:
    """Columns of equal length.

    Attributes:
        columns: by name, in order.
        classes: for a column of labels, the names of the classes 0, 1, …, where the data know them.
        origin: where it came from, for messages.
        blocks: first row of every block of rows that should be read together; empty where any order is
            as fast.
    """

    columns: Mapping[str, Column]
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    origin: str = "the data"
    blocks: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        lengths = {name: len(column) for name, column in self.columns.items()}
        if not lengths:
            raise NnoptError(f"{self.origin}: has no columns")
        if len(set(lengths.values())) > 1:
            listed = ", ".join(f"{name} {count}" for name, count in lengths.items())
            raise NnoptError(f"{self.origin}: its columns have different numbers of rows: {listed}")

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def workers(self, threads: int) -> int:
        """How many threads should read ahead, of `threads` at most.

        Decoding a small image is mostly Python's own work, of which one thread does as much as several.
        """
        images = [column for column in self.columns.values() if isinstance(column, Images)]
        if not images:
            return 0  # picking numbers takes less than handing them over
        return 1 if all(column.typical_bytes < SMALL for column in images) else min(4, threads)
