"""Counter-based random numbers: each is a hash of its position, so chunking and threads cannot matter."""

from __future__ import annotations

import numpy as np

from nnopt_cli import Array

_GOLDEN = 0x9E3779B97F4A7C15
_WORD = (1 << 64) - 1


def mix(counters: Array, seed: int) -> Array:
    """64 random bits for each counter (uint64): output `counter` of the SplitMix64 generator at `seed`.

    Source: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
    """
    z = (counters + np.uint64(1)) * np.uint64(_GOLDEN)
    z += np.uint64(seed & _WORD)
    z ^= z >> np.uint64(30)
    z *= np.uint64(0xBF58476D1CE4E5B9)
    z ^= z >> np.uint64(27)
    z *= np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return z


def uniform(seed: int, stream: int, start: int, count: int) -> Array:
    """Float64 numbers, uniform on [0, 1) in steps of 2^-53, number `start` and on of `stream`."""
    own = int(mix(np.array([stream], np.uint64), int(mix(np.array([0], np.uint64), seed)[0]))[0])
    return (mix(np.arange(start, start + count, dtype=np.uint64), own) >> np.uint64(11)) * 2.0**-53
