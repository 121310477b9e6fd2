"""Which N:M patterns a tensor holds: at most N non-zeros in every group of M consecutive weights."""

from __future__ import annotations

import math

import numpy as np

from nnopt_cli.formats.weight import Array, Weight

SIZES = (2, 4, 8, 16)  # the M that are looked for
CHANCE = 1e-4  # a pattern that random zeros would show more often than this is not reported
_SLAB = 1 << 20  # elements; a tensor that cannot be read in smaller pieces is not searched


class PatternScan:
    """Looks for N:M patterns while a tensor streams by.

    Groups lie along dimension 1: consecutive weights of a row of a linear map; input channels, at
    each kernel position, of a convolution. What M leaves over at the end of the dimension is not looked at.

    Attributes:
        unit: `see` wants whole multiples of this many elements.
    """

    def __init__(self, weight: Weight) -> None:
        rows_of = weight.shape[1] if len(weight.shape) > 1 else 0
        kernel = math.prod(weight.shape[2:])
        slab = rows_of * kernel
        fits = weight.dtype.kind in ("float", "float8") and 0 < slab <= _SLAB
        self.unit = slab if fits else 1
        self._shape = (-1, rows_of, kernel)
        self._elements = weight.numel
        self._most = {m: 0 for m in SIZES if fits and rows_of >= m}  # largest count of non-zeros in a group
        self._least = {m: m for m in self._most}
        self._groups = {m: weight.shape[0] * kernel * (rows_of // m) for m in self._most}

    def see(self, mask: Array) -> None:
        """Take in the next elements: a 1-D boolean array, True where not zero."""
        if all(most == m for m, most in self._most.items()):
            return  # dense as far as seen, as most tensors are: nothing left to find
        counts = mask.view(np.uint8).reshape(self._shape)
        for m in self._most:  # counts in groups of m are sums of two neighbours in groups of m / 2
            pairs = counts.shape[1] // 2
            counts = counts[:, 0 : 2 * pairs : 2] + counts[:, 1 : 2 * pairs : 2]
            self._most[m] = max(self._most[m], int(counts.max(initial=0)))
            self._least[m] = min(self._least[m], int(counts.min(initial=m)))

    def found(self, zeros: int) -> tuple[str, ...]:
        """The patterns, `N:M`, that no other one implies and that chance does not explain."""
        if not self._elements or zeros in (0, self._elements):
            return ()
        density = 1 - zeros / self._elements
        held = []
        for m, n in self._most.items():
            exactly = self._least[m] == n
            if 0 < n < m and _chance(n, m, density, self._groups[m], exactly) < CHANCE:
                held.append((n, m))
        kept = [p for p in held if not any(q != p and implies(q, p) for q in held)]
        return tuple(f"{n}:{m}" for n, m in kept)


def implies(strong: tuple[int, int], weak: tuple[int, int]) -> bool:
    """Whether every tensor with pattern `strong` (N, M) has pattern `weak`: 1:2 → 2:4, 1:4 → 1:2."""
    (n, m), (other_n, other_m) = strong, weak
    if other_m % m == 0:
        return other_n >= n * (other_m // m)
    return m % other_m == 0 and other_n >= min(n, other_m)


def _chance(n: int, m: int, density: float, groups: int, exactly: bool) -> float:
    """Probability that zeros thrown at random would show it in all `groups`: at most n of m, or exactly n."""
    one = [math.comb(m, k) * density**k * (1 - density) ** (m - k) for k in range(n + 1)]
    single = one[n] if exactly else min(1.0, math.fsum(one))
    return float(single**groups)
