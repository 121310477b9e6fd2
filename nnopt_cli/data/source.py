"""What a dataset may open to: a table, samples by number, or a stream; and how anything becomes one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnopt_cli.data.table import Column, Lists, Numbers, Table, Texts
from nnopt_cli.errors import NnoptError


@dataclass(frozen=True)
class Samples:
    """Samples that are made one by one, as PyTorch's map-style datasets do.

    Attributes:
        items: `items[i]` is a sample: `(input, target)`, `(input, …, target)`, or a mapping of names.
        origin: where they came from, for messages.
    """

    items: Any
    origin: str = "the data"

    def __len__(self) -> int:
        return len(self.items)


@dataclass(frozen=True)
class Stream:
    """Samples, or whole batches, that come in an order of their own.

    Attributes:
        start: begins a new pass.
        batched: whether each thing that comes is a batch already.
        origin: where they came from, for messages.
    """

    start: Callable[[], Iterable[Any]]
    batched: bool = False
    origin: str = "the data"

    def __iter__(self) -> Iterator[Any]:
        return iter(self.start())


Source = Table | Samples | Stream


def as_source(thing: Any, origin: str = "the data", again: Callable[[], Any] | None = None) -> Source:
    """Make a source of whatever code returned.

    Args:
        thing: a `Table`, `Samples` or `Stream`; a PyTorch Dataset or DataLoader; a mapping of arrays or
            tensors by name; `(x, y)` arrays or tensors; a sequence of samples; or any iterable of samples.
        origin: where it came from, for messages.
        again: makes the same once more, for an iterator, which can be gone through only once.

    Raises NnoptError for anything else.
    """
    import torch
    from torch.utils.data import DataLoader, IterableDataset

    if isinstance(thing, Table | Samples | Stream):
        return thing
    if isinstance(thing, DataLoader):
        return Stream(lambda: thing, batched=thing.batch_size is not None or _batches(thing), origin=origin)
    if isinstance(thing, Mapping):
        return Table({str(name): column(value) for name, value in thing.items()}, origin=origin)
    arrays = isinstance(thing, tuple | list) and len(thing) > 1
    if arrays and all(isinstance(part, torch.Tensor | np.ndarray) and part.ndim for part in thing):
        if len(thing) == 2:
            return as_source({"x": thing[0], "y": thing[1]}, origin)
        names = [*(f"x{number}" for number in range(1, len(thing))), "y"]
        return as_source(dict(zip(names, thing, strict=True)), origin)
    if isinstance(thing, torch.Tensor | np.ndarray):
        raise NnoptError(f"{origin}: is one array, and inputs and targets are two", "Return (x, y).")
    if isinstance(thing, str | bytes):
        raise NnoptError(f"{origin}: is text, which is no data", "To read a file, give its path to --data.")
    if hasattr(thing, "__getitem__") and hasattr(thing, "__len__") and not isinstance(thing, IterableDataset):
        return Samples(thing, origin)
    if isinstance(thing, Iterator):
        if again is None:
            raise NnoptError(
                f"{origin}: is an iterator, which can be gone through only once", "Give an iterable."
            )
        return Stream(_first(thing, again), origin=origin)
    if isinstance(thing, Iterable):
        return Stream(lambda: thing, origin=origin)
    raise NnoptError(
        f"{origin}: is a {type(thing).__name__}, which is no data",
        "Return a Dataset, a DataLoader, an iterable of (input, target), or (x, y) arrays.",
    )


def column(values: Any) -> Column:
    """A column of an array, a tensor, or a list."""
    import torch

    if isinstance(values, Column):
        return values
    if isinstance(values, torch.Tensor):
        tensor = values.detach().cpu()
        return Numbers((tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy())
    if isinstance(values, list | tuple) and values and isinstance(values[0], str):
        return Texts([str(value) for value in values])
    if isinstance(values, list | tuple) and len({len(row) for row in values if hasattr(row, "__len__")}) > 1:
        starts = np.cumsum([0, *(len(row) for row in values)])
        return Lists(np.concatenate([np.asarray(row) for row in values]), starts)
    array = np.asarray(values)
    if array.dtype.kind in "US":
        return Texts([str(value) for value in array])
    if array.dtype.kind not in "biuf":
        raise NnoptError(f"a column holds {array.dtype}, which is neither numbers nor text")
    return Numbers(array)


def _batches(loader: Any) -> bool:
    """Whether a loader without a batch size gives batches: its sampler then gives lists of numbers."""
    from torch.utils.data import BatchSampler

    return isinstance(getattr(loader, "sampler", None), BatchSampler)


def _first(thing: Iterator[Any], again: Callable[[], Any]) -> Callable[[], Iterable[Any]]:
    """The iterator that is there already for the first pass, new ones afterwards."""
    waiting = [thing]
    return lambda: waiting.pop() if waiting else again()
