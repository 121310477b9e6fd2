"""Two models side by side, chunk by chunk: constant memory, whatever their size."""

from __future__ import annotations

import math
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nnopt_cli.formats.weight import Array, Weight
from nnopt_cli.model.values import as_numbers, nonzero

if TYPE_CHECKING:
    from nnopt_cli.model.model import Model
    from nnopt_cli.run import Run

CHUNK_ELEMENTS = 1 << 16  # half a megabyte in float64: scratch stays in L2


@dataclass(frozen=True, slots=True)
class Difference:
    """Two tensors of one shape, A and B. Distances are in float64, over elements finite on both sides.

    Attributes:
        elements: number of elements.
        changed: elements whose bits differ; where the dtypes differ, whose values do (NaN equals NaN).
        unequal: elements whose values differ: without +0 against -0 and NaN against NaN.
        max_abs: largest |b - a|; None where no element is finite on both sides.
        relative: L2 norm of b - a over that of a; None where a has none, or nothing is finite.
        cosine: cosine of the angle between a and b; None where one has no norm.
        zeros_a: zeros in A.
        zeros_b: zeros in B.
        zeros_added: elements that are zero in B and not in A.
        zeros_revived: elements that are zero in A and not in B.
        survivors_changed: elements that are not zero in either, and unequal or of different bits.
        nonfinite: elements that are NaN or infinite on either side.
    """

    elements: int
    changed: int = 0
    unequal: int = 0
    max_abs: float | None = 0.0
    relative: float | None = 0.0
    cosine: float | None = None
    zeros_a: int = 0
    zeros_b: int = 0
    zeros_added: int = 0
    zeros_revived: int = 0
    survivors_changed: int = 0
    nonfinite: int = 0


@dataclass
class _Sums:
    """Running sums of one pair of tensors."""

    changed: int = 0
    unequal: int = 0
    max_abs: float = 0.0
    square_a: float = 0.0
    square_b: float = 0.0
    square_difference: float = 0.0
    product: float = 0.0
    zeros_a: int = 0
    zeros_b: int = 0
    zeros_added: int = 0
    zeros_revived: int = 0
    survivors_changed: int = 0
    nonfinite: int = 0


def difference(a: Weight, b: Weight) -> Difference:
    """Compare two tensors of one shape in one pass. Raises UnreadableError where a file ends early."""
    sums = _Sums()
    unit = math.lcm(a.unit, b.unit)
    spans = list(a.spans(min(unit, max(1, a.numel)), CHUNK_ELEMENTS * a.dtype.itemsize))
    longest = spans[0][1] if spans else 0
    buffer_a, buffer_b = np.empty(longest, a.dtype.word), np.empty(longest, b.dtype.word)
    for start, count in spans:
        _add(sums, a, b, a.chunk(start, count, buffer_a), b.chunk(start, count, buffer_b))
    norms = math.sqrt(sums.square_a) * math.sqrt(sums.square_b)
    odd = 0 < a.numel == sums.nonfinite
    distance, norm_a = math.sqrt(sums.square_difference), math.sqrt(sums.square_a)
    return Difference(
        elements=a.numel,
        changed=sums.changed,
        unequal=sums.unequal,
        max_abs=None if odd else sums.max_abs,
        relative=distance / norm_a if norm_a else None if distance or odd else 0.0,
        cosine=max(-1.0, min(1.0, sums.product / norms)) if norms else None,
        zeros_a=sums.zeros_a,
        zeros_b=sums.zeros_b,
        zeros_added=sums.zeros_added,
        zeros_revived=sums.zeros_revived,
        survivors_changed=sums.survivors_changed,
        nonfinite=sums.nonfinite,
    )


def _add(sums: _Sums, a: Weight, b: Weight, words_a: Array, words_b: Array) -> None:
    alive_a, alive_b = nonzero(words_a, a.dtype), nonzero(words_b, b.dtype)
    count = len(words_a)
    sums.zeros_a += count - int(np.count_nonzero(alive_a))
    sums.zeros_b += count - int(np.count_nonzero(alive_b))
    numbers_a = as_numbers(words_a, a.dtype)
    if a.dtype == b.dtype and np.array_equal(_bits(words_a), _bits(words_b)):
        _add_norms(sums, numbers_a, numbers_a)
        return
    numbers_b = as_numbers(words_b, b.dtype)
    unequal = (numbers_a != numbers_b) & ~(np.isnan(numbers_a) & np.isnan(numbers_b))
    changed = _bits(words_a) != _bits(words_b) if a.dtype == b.dtype else unequal
    changed = changed.reshape(count, -1).any(axis=1)
    sums.changed += int(np.count_nonzero(changed))
    sums.unequal += int(np.count_nonzero(unequal))
    sums.zeros_added += int(np.count_nonzero(alive_a & ~alive_b))
    sums.zeros_revived += int(np.count_nonzero(alive_b & ~alive_a))
    sums.survivors_changed += int(np.count_nonzero(changed & alive_a & alive_b))
    _add_norms(sums, numbers_a, numbers_b)


def _add_norms(sums: _Sums, a: Array, b: Array) -> None:
    finite = np.isfinite(a) & np.isfinite(b)
    if not finite.all():
        sums.nonfinite += int(finite.size - np.count_nonzero(finite))
        a, b = a[finite], b[finite]
    with np.errstate(over="ignore"):  # float64 beyond 1e154: the sums are then infinite
        own = float((a * a.conj()).real.sum())
        sums.square_a += own
        if a is b:
            sums.square_b += own
            sums.product += own
            return
        apart = np.abs(b - a)
        sums.max_abs = max(sums.max_abs, float(apart.max(initial=0.0)))
        sums.square_difference += float((apart * apart).sum())
        sums.square_b += float((b * b.conj()).real.sum())
        sums.product += float((a.conj() * b).real.sum())


def _bits(words: Array) -> Array:
    """Words as unsigned integers, so that NaN equals itself; 16-byte elements as pairs of them."""
    size = words.dtype.itemsize
    return words.view(np.uint64 if size >= 8 else f"u{size}")


def compare_all(
    a: Model, b: Model, pairs: Iterable[tuple[str, str]], run: Run
) -> dict[tuple[str, str], Difference]:
    """`difference` of each pair of names (of equal shapes), tied ones once, on `run.threads` threads."""
    weights = {pair: (a.weights[pair[0]], b.weights[pair[1]]) for pair in pairs}
    first: dict[tuple[int, int], tuple[str, str]] = {}
    for pair, (x, y) in weights.items():
        first.setdefault((id(x), id(y)), pair)
    total = sum(weights[pair][0].nbytes + weights[pair][1].nbytes for pair in first.values())
    with run.progress("Comparing", total) as tick, ThreadPoolExecutor(run.threads) as pool:

        def work(pair: tuple[str, str]) -> Difference:
            x, y = weights[pair]
            found = difference(x, y)
            tick(x.nbytes + y.nbytes)
            return found

        done = dict(zip(first, pool.map(work, first.values()), strict=True))
    return {pair: done[id(x), id(y)] for pair, (x, y) in weights.items()}
