"""How a tensor's values are spread: counts in equal bins, from an even sample where it is large."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nnopt_cli.formats.weight import Array, Weight
from nnopt_cli.model.values import as_numbers

BINS = 40
SAMPLE = 1 << 19  # elements of one tensor that are looked at; all of a smaller one
SLICE = 1 << 14  # elements in a run of the sample
REACH = 4.0  # root mean squares on either side that the bins cover; what is farther out is in the last bins


@dataclass(frozen=True)
class Spread:
    """Counts of the finite elements that are not zero.

    Attributes:
        low: left edge of the first of `BINS` bins, which also holds all that is smaller.
        high: right edge of the last one.
        counts: elements in each bin.
        zeros: elements of the sample that are zero.
        seen: elements of the sample.
    """

    low: float
    high: float
    counts: tuple[int, ...]
    zeros: int
    seen: int


def reach(weight: Weight) -> float:
    """How far from zero bins should go for `weight`; 0 where nothing in it is finite and not zero."""
    square, count, largest = 0.0, 0, 0.0
    for values in _sampled(weight):
        kept = np.abs(values[np.isfinite(values) & (values != 0)])
        largest = max(largest, float(kept.max(initial=0.0)))
        with np.errstate(over="ignore"):
            square += float(np.square(kept).sum())
        count += kept.size
    return min(largest, REACH * float(np.sqrt(square / count))) if count else 0.0


def spread(weight: Weight, far: float) -> Spread:
    """Count the elements of `weight` in bins from `-far` to `far`. Reads at most `SAMPLE` of them."""
    counts = np.zeros(BINS, np.int64)
    zeros = seen = 0
    for values in _sampled(weight):
        seen += values.size
        zeros += int(np.count_nonzero(values == 0))
        kept = values[np.isfinite(values) & (values != 0)]
        counts += np.histogram(np.clip(kept, -far, far), BINS, (-far, far))[0]
    return Spread(-far, far, tuple(int(count) for count in counts), zeros, seen)


def _sampled(weight: Weight) -> Iterator[Array]:
    """Runs of elements as float64, spread evenly over the tensor; whole chunks where an edit needs them."""
    unit, total = weight.unit, weight.numel
    if total <= SAMPLE or unit > SLICE:
        spans = list(weight.spans(1, SLICE * weight.dtype.itemsize))
        wanted = max(1, SAMPLE // max(1, spans[0][1])) if spans else 0
        spans = spans[:: max(1, -(-len(spans) // wanted))] if spans else []
    else:
        length = SLICE // unit * unit
        last = (total - length) // unit
        places = {round(last * n / (SAMPLE // SLICE - 1)) * unit for n in range(SAMPLE // SLICE)}
        spans = [(start, length) for start in sorted(places)]
    buffer = np.empty(max((count for _, count in spans), default=0), weight.dtype.word)
    for start, count in spans:
        yield as_numbers(weight.chunk(start, count, buffer), weight.dtype).astype(np.float64, copy=False)
