"""Raw words as numbers: what the elements of a tensor are worth, for every element type."""

from __future__ import annotations

from functools import cache

import numpy as np

from nnopt_cli.formats.dtypes import DType
from nnopt_cli.formats.weight import Array

# exponent bits, mantissa bits, exponent bias, IEEE-style infinities, one NaN in place of -0
_FLOAT8 = {
    "float8_e4m3fn": (4, 3, 7, False, False),
    "float8_e5m2": (5, 2, 15, True, False),
    "float8_e4m3fnuz": (4, 3, 8, False, True),
    "float8_e5m2fnuz": (5, 2, 16, False, True),
}


def as_numbers(words: Array, dtype: DType) -> Array:
    """The elements as float64, or as complex128 for complex types; a new array of the same length.

    Exact for every type but 64-bit integers, which round beyond 2**53.
    """
    if dtype.kind == "float8":
        found: Array = float8_table(dtype.name)[words]
        return found
    with np.errstate(invalid="ignore"):  # a signalling NaN becomes a quiet one
        if dtype.name == "bfloat16":
            return (words.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
        if dtype.name == "complex32":
            return words.view(np.float16).astype(np.float64).view(np.complex128)
        return words.astype(np.complex128 if dtype.kind == "complex" else np.float64)


def nonzero(words: Array, dtype: DType) -> Array:
    """Which elements are not zero, as booleans; -0 is zero, NaN is not."""
    mask: Array
    if dtype.name in ("bfloat16", "float16"):  # numpy compares half floats in software, integers in SIMD
        mask = (words.view(np.uint16) & 0x7FFF) != 0
    elif dtype.kind == "float8":
        mask = (float8_table(dtype.name) != 0)[words]
    elif dtype.name == "complex32":
        mask = (words & 0x7FFF7FFF) != 0
    else:
        mask = words != 0
    return mask


@cache
def float8_table(name: str) -> Array:
    """The 256 values of an 8-bit floating type, float64 (OCP 8-bit floating point and its variants)."""
    code = np.arange(256)
    if name == "float8_e8m0fnu":  # a power of two, no sign, no zero
        return np.where(code == 255, np.nan, np.ldexp(1.0, code - 127))
    exponent_bits, mantissa_bits, bias, infinities, one_nan = _FLOAT8[name]
    top = (1 << exponent_bits) - 1
    exponent, mantissa = (code >> mantissa_bits) & top, code & ((1 << mantissa_bits) - 1)
    significand = np.where(exponent == 0, mantissa, mantissa + (1 << mantissa_bits)).astype(np.float64)
    size = np.ldexp(significand, np.maximum(exponent, 1) - bias - mantissa_bits)
    if infinities:
        size = np.where(exponent == top, np.where(mantissa == 0, np.inf, np.nan), size)
    elif not one_nan:
        size = np.where(code & 0x7F == 0x7F, np.nan, size)
    values = np.where(code < 128, size, -size)
    return np.where(code == 128, np.nan, values) if one_nan else values
