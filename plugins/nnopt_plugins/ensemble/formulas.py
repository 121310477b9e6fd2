"""What the methods compute: pure functions over numpy arrays."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from nnopt_cli import Array

_PARALLEL = 1e-6  # sine of an angle from which two directions count as one
_BINS = 1 << 16  # values of 16 bits
_INFINITY = np.float32(np.inf)
_LOOKS, _STRIDE = 8, 4  # a sample: every fourth value of eight chunks
_MOST = 1 << 22  # magnitudes that are held for sorting
_SIGN = {np.float32: np.uint32(1 << 31), np.float64: np.uint64(1 << 63)}
_STEPS, _CLOSE = 100, 1e-12  # of the Karcher mean's iteration, and where it ends


def combined(values: Sequence[Array], coefficients: Sequence[float]) -> Array:
    """The sum of `values`, each times its coefficient, in the values' type."""
    kind = values[0].dtype.type
    total: Array = values[0] * kind(coefficients[0])
    scratch = np.empty_like(total)
    for value, coefficient in zip(values[1:], coefficients[1:], strict=True):
        total += np.multiply(value, kind(coefficient), out=scratch)
    return total


def cosine(gram: Array, i: int, j: int) -> float:
    """Cosine of the angle between vectors i and j, from their inner products; 0 where one is zero."""
    norms = math.sqrt(gram[i, i]) * math.sqrt(gram[j, j])
    return max(-1.0, min(1.0, float(gram[i, j]) / norms)) if norms else 0.0


def slerp_coefficients(gram: Array, t: float) -> tuple[float, float]:
    """What the two vectors are multiplied by: sin((1-t)θ)/sin θ and sin(tθ)/sin θ.

    Shoemake, "Animating rotation with quaternion curves", SIGGRAPH 1985, section 3.3. θ is the angle
    between them; in the limit of θ = 0, where one is zero, and where they are opposite, linear.
    """
    angle = math.acos(cosine(gram, 0, 1))
    if math.sin(angle) < _PARALLEL or not gram[0, 0] or not gram[1, 1]:
        return 1 - t, t
    return math.sin((1 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)


def karcher_coefficients(gram: Array, shares: Sequence[float]) -> list[float]:
    """The point of the sphere with the least sum of squared angles to all directions, times the mean norm.

    Grove and Karcher, "How to conjugate C1-close group actions", Math. Z. 132, 1973; the iteration is
    gradient descent by exponential and logarithm maps. It never leaves the span of the vectors, so
    it works on coefficients, and needs no more than their inner products.
    """
    norms = np.sqrt(np.diag(gram))
    used = norms > 0
    weights = np.where(used, np.asarray(shares, dtype=np.float64), 0.0)
    if not weights.sum():
        return list(shares)
    weights = weights / weights.sum()
    scale = np.where(used, norms, 1.0)
    angles = gram / np.outer(scale, scale)  # cosines
    point = weights.copy()
    length = math.sqrt(max(0.0, point @ angles @ point))
    if length < _PARALLEL:  # directions that cancel out have no one mean
        return list(shares)
    point /= length
    for _ in range(_STEPS):
        towards = np.clip(angles @ point, -1.0, 1.0)
        theta = np.arccos(towards)
        factor = weights * np.where(theta < _PARALLEL, 1.0, theta / np.maximum(np.sin(theta), 1e-300))
        step = factor - (factor @ towards) * point
        size = math.sqrt(max(0.0, step @ angles @ step))
        if size < _CLOSE:
            break
        point = math.cos(size) * point + math.sin(size) / size * step
        point /= math.sqrt(point @ angles @ point)
    radius = float(weights @ norms)
    return [float(value) for value in radius * point / scale]


def stock_ratio(gram: Array) -> float:
    """How far from the ancestor towards the members' mean: N cos θ / (1 + (N-1) cos θ).

    Jang et al., "Model Stock: All we need is just a few fine-tuned models", arXiv:2403.19522, equation 3
    and its form for N models; θ is the mean angle between differences, its cosine that of all pairs.
    """
    count = len(gram)
    cosines = [cosine(gram, i, j) for i in range(count) for j in range(i)]
    mean = sum(cosines) / len(cosines)
    below = 1 + (count - 1) * mean
    return min(1.0, max(0.0, count * mean / below)) if below > 0 else 0.0


def moving_average(decay: float, count: int) -> list[float]:
    """What each of `count` checkpoints, the oldest first, has in their exponential moving average.

    Polyak and Juditsky, "Acceleration of stochastic approximation by averaging", 1992; from the first
    checkpoint on, average = decay x average + (1 - decay) x checkpoint.
    """
    later = [(1 - decay) * decay ** (count - 1 - place) for place in range(1, count)]
    return [decay ** (count - 1), *later]


def thresholds(read: Callable[[int | None], Iterable[Sequence[Array]]], density: float) -> list[float]:
    """For each member the magnitude of its `int(density * elements)`-th largest element, exactly.

    A sample brackets it, then one pass counts what is above and sorts what is between; where the sample
    was too far off, or too much lies between, further passes count 16 bits at a time. Constant memory.

    Args:
        read: gives the values chunk by chunk; where it is given a number, of so many spread chunks only.
        density: the share that is kept, above 0 and below 1. Infinity is returned where nothing is.
    """
    found = _brackets(read(_LOOKS), density)
    total, kind = 0, np.float32
    for values in read(None):
        total, kind = total + len(values[0]), values[0].dtype.type
        for bracket, value in zip(found, values, strict=True):
            bracket.see(_magnitude(value))
    keep = int(density * total)
    if not keep:
        return [math.inf] * len(found)
    exact = [bracket.largest(keep) for bracket in found]
    return [_counted(read, member, keep, kind) if each is None else each for member, each in enumerate(exact)]


class _Bracket:
    """Of the magnitudes that it sees, how many lie at or above `high`, and those from `low` to there."""

    def __init__(self, low: Any, high: Any) -> None:
        self._low, self._high = low, high
        self._above = self._count = 0
        self._between: list[Array] = []

    def see(self, sizes: Array) -> None:
        near, above = sizes >= self._low, sizes >= self._high
        self._above += int(np.count_nonzero(above))
        if self._count <= _MOST:
            self._between.append(sizes[np.bitwise_xor(near, above, out=near)])
            self._count += len(self._between[-1])

    def largest(self, place: int) -> float | None:
        """The `place`-th largest, if it is among those that were collected."""
        if not self._above < place <= self._above + self._count or self._count > _MOST:
            return None
        return float(np.sort(np.concatenate(self._between))[self._above - place])


def _brackets(chunks: Iterable[Sequence[Array]], density: float) -> list[_Bracket]:
    """For each member a bracket that the threshold very probably lies in."""
    taken = [[_magnitude(value[::_STRIDE]) for value in values] for values in chunks]
    out = []
    for member in range(len(taken[0]) if taken else 0):
        sample = np.sort(np.concatenate([each[member] for each in taken]))[::-1]
        place, spread = density * len(sample), 4 * math.sqrt(len(sample) * density * (1 - density)) + 1
        first, last = max(0, math.floor(place - spread)), math.ceil(place + spread)
        high = np.nextafter(sample[first], _INFINITY) if first else _INFINITY
        low = sample[last] if last < len(sample) else np.float32(0)
        out.append(_Bracket(low, high))
    return out


def _counted(
    read: Callable[[int | None], Iterable[Sequence[Array]]], member: int, keep: int, kind: Any
) -> float:
    """The `keep`-th largest magnitude, by counting 16 of its bits at a time, the uppermost first."""
    known, left, width = 0, keep, np.dtype(kind).itemsize * 8
    for shift in range(width - 16, -1, -16):
        counts = np.zeros(_BINS, np.int64)
        for values in read(None):
            bits = _bits(_magnitude(values[member]))
            word = bits.dtype.type
            if shift + 16 < width:
                bits = bits[bits >> word(shift + 16) == known]
            counts += np.bincount((bits >> word(shift) & word(_BINS - 1)).astype(np.intp), minlength=_BINS)
        place, left = _place(counts, left)
        known = known << 16 | place
    return float(np.array(known, f"u{width // 8}").view(kind))


def _place(counts: Array, keep: int) -> tuple[int, int]:
    """The bin with the `keep`-th largest element, and the how-manieth largest of the bin it is."""
    above = np.cumsum(counts[::-1])
    place = int(np.searchsorted(above, keep))
    return len(counts) - 1 - place, keep - (int(above[place - 1]) if place else 0)


def _magnitude(values: Array) -> Array:
    """|values|, whose bits order as the numbers do."""
    sizes: Array = np.abs(values)
    return sizes


def trimmed(value: Array, least: float) -> Array:
    """`value` with everything of a magnitude below `least` set to zero."""
    kept: Array = value * (np.abs(value) >= value.dtype.type(least))
    return kept


def elected(values: Sequence[Array], shares: Sequence[float], *, normalize: bool) -> Array:
    """For each element the sign with the larger sum; then the mean (or sum) of the members of that sign.

    Yadav et al., "TIES-Merging: Resolving interference when merging models", arXiv:2306.01708,
    section 4, steps 2 and 3. A sum of zero elects plus; the mean is over members that are not zero.
    """
    kind = values[0].dtype.type  # np.where on random masks is many times slower than what is done here
    equal = min(shares) == max(shares) > 0
    weighted = values if equal else [value * kind(share) for value, share in zip(values, shares, strict=True)]
    total = weighted[0].copy()
    for each in weighted[1:]:
        total += each
    signs = _bits(total)
    signs &= _SIGN[kind]
    merged, nothing = np.zeros_like(total), np.zeros_like(total)
    turned = np.empty_like(merged)  # numbers times the elected sign: what is positive agrees
    flags = np.empty(total.shape, np.bool_)
    weight = np.zeros(merged.shape, kind if not equal else np.min_scalar_type(len(values)))
    for each, share in zip(weighted, shares, strict=True):
        np.bitwise_xor(_bits(each), signs, out=_bits(turned))
        agree = np.greater(turned, 0, out=flags)
        merged += np.maximum(turned, nothing, out=turned)  # with 0 itself it takes three times as long
        if normalize:
            weight += agree.view(np.uint8) if equal else np.multiply(agree, kind(share), out=turned)
    if not normalize:
        merged *= kind(shares[0] if equal else 1)
    elif equal:
        weight |= weight == 0
        np.copyto(turned, weight)
        merged /= turned
    else:
        merged /= weight + (np.abs(weight) < 1e-8)  # none agrees: 0 / 1
    np.bitwise_xor(_bits(merged), signs, out=_bits(merged))
    return merged


def _bits(numbers: Array) -> Array:
    """float32 or float64 as unsigned integers of that size."""
    return numbers.view(np.uint32 if numbers.itemsize == 4 else np.uint64)


def dropped(value: Array, density: float, seed: int, stream: int, start: int) -> Array:
    """`value` with each element kept with probability `density` and divided by it, else zero.

    Yu et al., "Language models are super Mario", arXiv:2311.03099, equation 2 (their p is 1 - density).
    The density is rounded to 1/65536. Which are kept follows from seed, stream and flat index, whatever
    the chunks are: PCG64DXSM can be advanced, and an element takes one byte of it, or two.
    """
    if density >= 1:
        return value
    word: Any = np.uint8 if density * 256 == int(density * 256) else np.uint16
    steps = 1 << 8 * np.dtype(word).itemsize
    kept = max(1, round(density * steps))
    each = 8 // np.dtype(word).itemsize  # elements that one draw of 64 bits is for
    first, skip = divmod(start, each)
    draws = np.random.PCG64DXSM(np.random.SeedSequence([seed, stream])).advance(first)
    bits = np.asarray(draws.random_raw(-(-(skip + len(value)) // each))).view(word)
    out: Array = value * (bits[skip : skip + len(value)] < kept)
    out *= value.dtype.type(steps / kept)
    return out


def weighted_mean(values: Sequence[Array], weights: Sequence[Array]) -> Array:
    """The mean of `values`, weighted element by element; weights are positive."""
    total, weight = np.zeros_like(values[0]), np.zeros_like(values[0])
    for value, own in zip(values, weights, strict=True):
        total += value * own
        weight += own
    total /= weight
    return total
