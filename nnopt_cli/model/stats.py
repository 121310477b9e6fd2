"""Figures of each tensor of a model in one streaming pass: constant memory, whatever the model's size."""

from __future__ import annotations

import math
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from blake3 import blake3

from nnopt_cli.formats.weight import Array, Weight
from nnopt_cli.model.patterns import PatternScan
from nnopt_cli.model.values import as_numbers, nonzero

if TYPE_CHECKING:
    from nnopt_cli.model.model import Model
    from nnopt_cli.run import Run

CHUNK_ELEMENTS = 1 << 16  # half a megabyte in float64: scratch stays in L2


@dataclass(frozen=True, slots=True)
class Stats:
    """Figures of one tensor. Norms and the maximum are of its finite elements, in float64.

    Attributes:
        elements: number of elements.
        zeros: elements that are zero (+0 and -0).
        nonfinite: elements that are NaN or infinite (for complex ones, in either part).
        l1: sum of |w|.
        l2: square root of the sum of |w|².
        max_abs: largest |w|.
        patterns: N:M patterns that it holds and that chance does not explain (see `patterns`).
        blake3: hex digest of its elements (row-major, little-endian).
    """

    elements: int
    zeros: int
    nonfinite: int
    l1: float
    l2: float
    max_abs: float
    patterns: tuple[str, ...]
    blake3: str

    @property
    def sparsity(self) -> float:
        """Fraction of its elements that are zero."""
        return self.zeros / self.elements if self.elements else 0.0


def measure(weight: Weight) -> Stats:
    """Read `weight` once, chunk by chunk, and count. Raises UnreadableError where its file ends early."""
    scan = PatternScan(weight)
    digest = blake3()
    zeros = nonfinite = 0
    l1 = square = largest = 0.0
    numeric = weight.dtype.kind in ("float", "float8", "complex")
    spans = list(weight.spans(scan.unit, CHUNK_ELEMENTS * weight.dtype.itemsize))
    buffer = np.empty(spans[0][1] if spans else 0, weight.dtype.word)
    for start, count in spans:
        words = weight.chunk(start, count, buffer)
        digest.update(words.data.cast("B"))
        mask = nonzero(words, weight.dtype)
        zeros += count - int(np.count_nonzero(mask))
        scan.see(mask)
        if numeric:
            sizes, odd = _finite_sizes(as_numbers(words, weight.dtype))
            nonfinite += odd
            l1 += float(sizes.sum())
            largest = max(largest, float(sizes.max(initial=0.0)))
            with np.errstate(over="ignore"):  # float64 beyond 1e154: the norm is then infinite
                square += float(np.multiply(sizes, sizes, out=sizes).sum())
    patterns = scan.found(zeros)
    l2 = math.sqrt(square)
    return Stats(weight.numel, zeros, nonfinite, l1, l2, largest, patterns, digest.hexdigest())


def measure_all(model: Model, names: Iterable[str], run: Run) -> dict[str, Stats]:
    """`measure` the named weights on `run.threads` threads, one tensor per thread at a time."""
    names = list(names)
    total = sum(model.weights[name].nbytes for name in names)
    with run.progress("Reading", total) as tick, ThreadPoolExecutor(run.threads) as pool:

        def work(name: str) -> Stats:
            stats = measure(model.weights[name])
            tick(model.weights[name].nbytes)
            return stats

        return dict(zip(names, pool.map(work, names), strict=True))


def _finite_sizes(numbers: Array) -> tuple[Array, int]:
    """|w| of the finite elements as float64 (may reuse `numbers`), and how many are not finite."""
    real = numbers.dtype.kind == "f"
    sizes: Array = np.abs(numbers, out=numbers) if real else np.abs(numbers)
    if sizes.size and not math.isfinite(sizes.max()):  # max carries NaN through
        finite = np.isfinite(sizes)
        return sizes[finite], int(sizes.size - np.count_nonzero(finite))
    return sizes, 0
