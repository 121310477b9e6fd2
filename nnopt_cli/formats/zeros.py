"""Counting zeros in raw words, element type by element type."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nnopt_cli.formats.dtypes import DType
from nnopt_cli.formats.weight import Array

_MINUS_ZERO = {"float16": 0x8000, "bfloat16": 0x8000, "float8_e4m3fn": 0x80, "float8_e5m2": 0x80}


def count_zeros(words: Array, dtype: DType, flags: npt.NDArray[np.bool_]) -> int:
    """Elements of `words` (1-D, raw words of `dtype`) that are zero; -0 counts, and so does -0±0j.

    `flags` is scratch space of at least `len(words)`, so that counting allocates nothing. The `fnuz`
    float8 types have no -0 (that pattern is NaN there) and `float8_e8m0fnu` has no zero at all.
    """
    if dtype.name == "float8_e8m0fnu":
        return 0
    flags = flags[: len(words)]
    if dtype.name == "complex32":
        return int(np.count_nonzero((words & 0x7FFF7FFF) == 0))
    if dtype.name == "float16":
        words = words.view("<u2")  # numpy compares half floats in software, integers in SIMD
    with np.errstate(invalid="ignore"):  # a signalling NaN is not zero, and no cause for a warning
        zeros = int(np.count_nonzero(np.equal(words, 0, out=flags)))
    if dtype.name in _MINUS_ZERO:
        zeros += int(np.count_nonzero(np.equal(words, _MINUS_ZERO[dtype.name], out=flags)))
    return zeros
