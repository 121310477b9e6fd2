"""Raw words as the real numbers that merging computes with, and back, rounded once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from nnopt_cli.formats.dtypes import DType
from nnopt_cli.formats.weight import Array

_WIDE = ("float64", "complex128")
_PAIRS = {"complex32": np.float16, "complex64": np.float32, "complex128": np.float64}


def compute_type(dtypes: Iterable[DType]) -> Any:
    """numpy's float32, or float64 where one of `dtypes` holds that."""
    return np.float64 if any(dtype.name in _WIDE for dtype in dtypes) else np.float32


def reals_per_word(dtype: DType) -> int:
    """Two for complex elements, one for others."""
    return 2 if dtype.name in _PAIRS else 1


def to_reals(words: Array, dtype: DType, kind: Any, out: Array | None = None) -> Array:
    """The elements as an array of `kind` (float32 or float64); complex ones as pairs, twice as many.

    Exact, as long as `kind` is what `compute_type` gives for `dtype`. In the first places of `out`, where
    that is given, else in a new array.
    """
    count = len(words) * reals_per_word(dtype)
    out = np.empty(count, kind) if out is None else out[:count]
    if dtype.name != "bfloat16":
        np.copyto(out, words.view(_PAIRS.get(dtype.name, words.dtype)))
    elif kind is np.float32:
        bits = out.view(np.uint32)
        np.copyto(bits, words)  # in two steps, as a shift that widens goes through a buffer
        bits <<= np.uint32(16)
    else:
        np.copyto(out, np.left_shift(words, 16, dtype=np.uint32).view(np.float32))
    return out


def to_words(numbers: Array, dtype: DType) -> Array:
    """`numbers` rounded to the nearest element of `dtype`, ties to even; the inverse of `to_reals`."""
    if dtype.name == "bfloat16":
        bits = numbers.astype(np.float32, copy=False).view(np.uint32)
        odd = bits >> np.uint32(16)
        odd &= np.uint32(1)
        odd += np.uint32(0x7FFF)
        odd += bits
        odd >>= np.uint32(16)
        return odd.astype(np.uint16)
    with np.errstate(over="ignore"):  # beyond float16's largest is infinite, as in a cast
        return numbers.astype(_PAIRS.get(dtype.name, dtype.word)).view(dtype.word)
