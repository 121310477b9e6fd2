"""N:M masks, as array functions."""

from __future__ import annotations

import numpy as np

from nnopt_cli import Array
from nnopt_plugins.prune.keys import as_floats

_PACKED = {2: "<u2", 4: "<u4", 8: "<u8"}  # M -> the word that holds one group's ranks, a byte each


def keep_along_inputs(keys: Array, n: int, m: int, inputs: int, kernel: int) -> Array:
    """Keep the `n` largest of every `m` consecutive keys along the middle dimension of [out, inputs, kernel].

    Equal keys: the first goes first. What `m` leaves over at the end of the dimension is kept.

    Args:
        keys: 1-D unsigned, whole rows of `inputs * kernel` (or whole groups, if `kernel` is 1 and `m`
            divides `inputs`).
        n: kept in each group.
        m: size of a group.
        inputs: size of the middle dimension.
        kernel: size of the last.

    Returns:
        1-D booleans, True for what stays.
    """
    if kernel == 1 and inputs % m == 0:
        return keep_largest(keys, n, m)
    whole = inputs - inputs % m
    out = np.ones(len(keys), np.bool_)
    if whole:
        rows = keys.reshape(-1, inputs, kernel)[:, :whole].swapaxes(1, 2)
        kept = keep_largest(np.ascontiguousarray(rows).reshape(-1), n, m)
        out.reshape(-1, inputs, kernel)[:, :whole] = kept.reshape(-1, kernel, whole).swapaxes(1, 2)
    return out


def keep_largest(keys: Array, n: int, m: int) -> Array:
    """Keep the `n` largest of every `m` consecutive keys; of equal ones the later."""
    if m in _PACKED:
        return _ranks(keys, m) >= m - n
    order = np.argsort(keys.reshape(-1, m), axis=1, kind="stable")
    out = np.zeros(keys.shape, np.bool_)
    np.put_along_axis(out.reshape(-1, m), order[:, m - n :], True, axis=1)
    return out


def _ranks(keys: Array, m: int) -> Array:
    """How many keys of its group go before each key: those smaller, and those equal and earlier.

    Every pair is compared once, the whole array against itself shifted, which runs at SIMD speed. At
    first each key counts all earlier ones; a pair whose earlier key is the greater moves one from
    the later's count to the earlier's. A group's counts are the bytes of one word, so that both are one
    multiplication; carries between bytes cancel in the sum. Pairs across groups are masked out.
    """
    word = np.dtype(_PACKED[m]).type
    keys = as_floats(keys, int(keys.max(initial=0)))
    ranks = np.empty(len(keys) // m, word)
    greater = np.empty(len(keys), np.bool_)
    pairs = greater.view(word)
    earlier = sum(place << 8 * place for place in range(m))
    for shift in range(1, m):
        np.greater(keys[:-shift], keys[shift:], out=greater[:-shift])
        pairs &= word(sum(1 << 8 * place for place in range(m - shift)))
        pairs *= word((1 - (1 << 8 * shift)) % (1 << 8 * m))
        np.add(pairs, word(earlier) if shift == 1 else ranks, out=ranks)
    return ranks.view(np.uint8)
