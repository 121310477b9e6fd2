"""NaN and infinite weights: counted where a pass comes across them, never silently sorted."""

from __future__ import annotations

import threading

import numpy as np

from nnopt_cli import Array, NnoptError, in_threads
from nnopt_plugins.prune.keys import floats, magnitude_key, magnitudes
from nnopt_plugins.prune.parts import Desk, Part
from nnopt_plugins.prune.source import Item

SHOWN = 5  # tensors named in the message


class NonFinite:
    """Counts of NaN and infinite weights by tensor; `add` may be called from several threads."""

    def __init__(self) -> None:
        self._counts: dict[str, list[int]] = {}
        self._lock = threading.Lock()

    def add(self, item: Item, words: Array) -> None:
        """Count in a chunk of `item`'s words."""
        values = floats(words, item.weight.dtype.name)
        nan, infinite = int(np.isnan(values).sum()), int(np.isinf(values).sum())
        if nan or infinite:
            with self._lock:
                counts = self._counts.setdefault(item.name, [0, 0])
                counts[0] += nan
                counts[1] += infinite

    def total(self) -> int:
        return sum(map(sum, self._counts.values()))

    def describe(self) -> str:
        """`a.weight has 2 NaN; b.weight has 1 infinite weight`, in the order of names."""
        said = [f"{name} has {_say(*counts)}" for name, counts in sorted(self._counts.items())]
        more = [f"so do {len(said) - SHOWN} more tensors"] if len(said) > SHOWN else []
        return "; ".join(said[:SHOWN] + more)

    def refuse(self) -> None:
        """Raise NnoptError if there are any."""
        if self._counts:
            raise NnoptError(
                f"weights that are not finite cannot be ranked: {self.describe()}",
                "The model is probably broken (a training run that diverged). "
                "`--non-finite keep` leaves these weights as they are and prunes the others.",
            )


def _say(nan: int, infinite: int) -> str:
    said = [f"{nan:,} NaN"] * bool(nan) + [f"{infinite:,} infinite"] * bool(infinite)
    return f"{' and '.join(said)} weight{'s' * (nan + infinite > 1)}"


def scan(items: list[Item], threads: int, found: NonFinite) -> None:
    """Count in all of `items`: one read pass."""
    parts: list[Part] = []
    for tensor, item in enumerate(items):
        parts += [Part(len(parts), tensor, start, count) for start, count in item.weight.spans()]
    desk = Desk()

    def work(part: Part) -> None:
        item = items[part.tensor]
        dtype = item.weight.dtype
        words = item.weight.chunk(part.start, part.count, desk.array("words", part.count, dtype.word))
        key = magnitude_key([dtype.name])
        if magnitudes(words, dtype.name, key, desk.array("keys", part.count, key.word)).max() >= key.limit:
            found.add(item, words)

    in_threads(threads, parts, work)
