"""Keys: unsigned integers that order as importance does, so that selection is exact integer work.

For criteria that order by |w| the key is the bit pattern of |w|: IEEE 754 was laid out so that
these compare as the numbers do. For any other criterion it is its score as a float64, mapped to an
unsigned integer of the same order.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from nnopt_cli import Array

SCORE_NEVER = (1 << 64) - 1  # key of what must stay


@dataclass(frozen=True, slots=True)
class Key:
    """How keys are made and what they mean.

    Attributes:
        name: `float16`, `bfloat16`, `float32`, `float64`: bits of |w| as that type; or `score`.
        word: numpy type of the keys.
        limit: keys from here on are of weights that must stay (infinite, NaN, or scored NaN).
    """

    name: str
    word: str
    limit: int

    @property
    def last(self) -> int:
        """The largest key that the type holds."""
        return int(np.iinfo(self.word).max)

    def value(self, key: int) -> float:
        """The magnitude or score that `key` stands for."""
        if self.name == "score":
            sign = 1 << 63
            return float(np.array([key ^ sign if key & sign else key ^ SCORE_NEVER], "<u8").view("<f8")[0])
        if self.name == "bfloat16":
            return float(np.array([key << 16], "<u4").view("<f4")[0])
        return float(np.array([key], self.word).view(self.word.replace("u", "f"))[0])


_MAGNITUDE = {
    "float16": Key("float16", "<u2", 0x7C00),
    "bfloat16": Key("bfloat16", "<u2", 0x7F80),
    "float32": Key("float32", "<u4", 0x7F80_0000),
    "float64": Key("float64", "<u8", 0x7FF0 << 48),
}
SCORE = Key("score", "<u8", SCORE_NEVER)


def magnitude_key(dtypes: Iterable[str]) -> Key:
    """The narrowest key type into which |w| of all `dtypes` (torch's names) goes exactly."""
    names = set(dtypes)
    if len(names) == 1:
        return _MAGNITUDE[names.pop()]
    return _MAGNITUDE["float64" if "float64" in names else "float32"]


def bits(words: Array) -> Array:
    """`words` seen as unsigned integers of the same size."""
    raw: Array = words.view(f"<u{words.itemsize}")
    return raw


def magnitudes(words: Array, dtype: str, key: Key, out: Array) -> Array:
    """Keys of |w|: the bits without the sign, upcast exactly if `key` is wider than `dtype`.

    Args:
        words: 1-D raw words of `dtype`.
        dtype: torch's name of their type.
        key: from `magnitude_key`, of a set that holds `dtype`.
        out: 1-D, as long as `words`, of type `key.word`; filled and returned.
    """
    mask = out.dtype.type(key.last >> 1)
    source = out
    if dtype == key.name:
        source = bits(words)
    elif dtype == "bfloat16" and key.name == "float32":
        np.copyto(out, words)
        np.left_shift(out, 16, out=out)
    else:
        with np.errstate(invalid="ignore"):  # a signalling NaN becomes a quiet one, still the largest key
            np.copyto(out.view(key.word.replace("u", "f")), floats(words, dtype))
    np.bitwise_and(source, mask, out=out)
    return out


def as_floats(keys: Array, largest: int) -> Array:
    """Keys from 32 bits on seen as floats, where that keeps their order: floats compare twice as fast.

    Args:
        keys: unsigned integers.
        largest: the largest that they are compared with. Larger ones among them, NaN too, are then
            neither less nor equal, as they should be.

    The keys come back as they are where `largest` is infinite or NaN, and where some library has told
    the processor to take subnormal numbers for zero, which is tried out in the thread that will compare.
    """
    if keys.itemsize < 4:
        return keys
    seen: Array = keys.view(f"<f{keys.itemsize}")
    infinity = int(np.array(np.inf, seen.dtype).view(keys.dtype))
    smallest = np.ones(1, keys.dtype).view(seen.dtype)
    return seen if largest < infinity and bool((smallest > 0)[0]) else keys


def floats(words: Array, dtype: str) -> Array:
    """The weights as float32, or float64 where they are; exact, and not to be changed."""
    if dtype in ("float32", "float64"):
        return words
    if dtype == "float16":
        with np.errstate(invalid="ignore"):
            return words.astype("<f4")
    wide: Array = words.astype("<u4") << 16
    return wide.view("<f4")


def zero(words: Array, dtype: str) -> Array:
    """Which of `words` are +0 or -0."""
    raw = bits(words)
    zeros: Array = (raw & raw.dtype.type(np.iinfo(raw.dtype).max >> 1)) == 0
    return zeros


def scores_to_keys(scores: Array, zeros: Array, never: Array) -> Array:
    """Map float scores to uint64 keys of the same order.

    Args:
        scores: 1-D float scores; NaN for never.
        zeros: where the weights are zero already: key 0.
        never: where they must stay: the largest key.
    """
    with np.errstate(invalid="ignore"):
        plain = np.asarray(scores, "<f8") + 0.0  # also makes -0.0 equal to 0.0
    raw = plain.view("<u8")
    flip = (plain.view("<i8") >> 63).view("<u8") | np.uint64(1 << 63)
    keys: Array = np.maximum(raw ^ flip, np.uint64(1))
    keys[zeros] = 0
    keys[never | np.isnan(plain)] = SCORE_NEVER
    return keys
