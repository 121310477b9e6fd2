"""Guessing a quantile of very many keys from a sample, and selecting exactly among a few."""

from __future__ import annotations

import numpy as np

from nnopt_cli import Array
from nnopt_plugins.prune.noise import mix
from nnopt_plugins.prune.parts import Desk, Part
from nnopt_plugins.prune.source import Source

FEW = 1 << 21  # keys that may be copied whole
RUN = 256  # elements sampled in a row: a disk page or so
WIDE = 1 << 14  # a band of more elements is not sampled
MARGIN = 3.5  # half-width of the bracket in standard errors: misses once in some thousand runs


def sample(source: Source, seed: int, desk: Desk) -> list[Array]:
    """Keys of short runs of elements, one at a random place in each of many equal stretches.

    Empty where a tensor cannot be read in small pieces.
    """
    lengths = [
        -(-RUN // unit) * unit if unit < RUN else unit
        for unit in (
            np.lcm(unit, item.weight.unit) for item, unit in zip(source.items, source.units, strict=True)
        )
    ]
    if max(lengths) > WIDE:
        return []
    ends = np.cumsum([item.weight.numel for item in source.items])
    total = int(ends[-1])
    runs = min(max(1 << 16, total >> 10), 1 << 21) // max(lengths) + 64
    places = (np.arange(runs) * (total / runs)).astype(np.int64)
    places += (mix(np.arange(runs, dtype=np.uint64), seed) % np.uint64(max(1, total // runs))).astype(
        np.int64
    )
    out = []
    for place, tensor in zip(
        places.tolist(), np.searchsorted(ends, places, side="right").tolist(), strict=True
    ):
        weight, length = source.items[tensor].weight, int(lengths[tensor])
        unit = int(np.lcm(source.units[tensor], weight.unit))
        start = place - (int(ends[tensor]) - weight.numel)
        start = max(0, min(start, weight.numel - length)) // unit * unit
        part = Part(0, tensor, start, min(length, weight.numel - start))
        out.append(source.keys(part, desk).copy())
    return out


def guess(runs: list[Array], fraction: float, last: int) -> tuple[int, int]:
    """Bracket of the quantile at `fraction`, wide enough for what the runs say about their own error.

    Runs are samples of clusters: neighbouring weights are alike, so the error comes from how
    the runs differ, as well as from their length.
    """
    pool = np.concatenate(runs)
    lengths = np.array([len(run) for run in runs])
    ordered, n = np.sort(pool), len(pool)
    middle = ordered[min(n - 1, int(fraction * n))]
    shares = np.add.reduceat(pool < middle, np.cumsum(lengths) - lengths, dtype=np.int64) / lengths
    plain = np.sqrt((fraction * (1 - fraction) + 1 / n) / n)
    error = max(plain, float(shares.std()) / np.sqrt(len(runs)))
    lo = int(np.floor((fraction - MARGIN * error) * n)) - 2
    hi = int(np.ceil((fraction + MARGIN * error) * n)) + 2
    return (int(ordered[lo]) if lo >= 0 else 0), (int(ordered[hi]) if hi < n else last)


def nth(arrays: list[Array], rank: int, lo: int) -> tuple[int, int]:
    """The `rank`-th smallest key (1-based) in `arrays`, none below `lo`, and how many are smaller.

    Many keys are first cut down to those that share their top bits, so that no copy of all is made.
    """
    passed = 0
    if sum(map(len, arrays)) > FEW:
        low = arrays[0].dtype.type(lo)
        shift = max(0, int(max(int(array.max()) for array in arrays) - lo).bit_length() - 12)
        counts = np.zeros(1 << 12, np.int64)
        for first in range(0, len(arrays), 64):
            some = (np.concatenate(arrays[first : first + 64]) - low) >> arrays[0].dtype.type(shift)
            counts += np.bincount(some.astype(np.int64), minlength=1 << 12)
        ends = np.cumsum(counts)
        bin_ = int(np.searchsorted(ends, rank))
        passed = int(ends[bin_] - counts[bin_])
        arrays = [array[(array - low) >> array.dtype.type(shift) == bin_] for array in arrays]
    pool = np.concatenate(arrays)
    pool.partition(rank - passed - 1)
    found = pool[rank - passed - 1]
    return int(found), passed + int(np.count_nonzero(pool < found))
