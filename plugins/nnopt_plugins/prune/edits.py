"""The change itself, chunk by chunk: `ChunkEdit`s that set weights to zero and touch nothing else."""

from __future__ import annotations

import math

import numpy as np

from nnopt_cli import Array, ComponentError, Granularity, Grouping, Pattern
from nnopt_plugins.prune.bracket import Cut
from nnopt_plugins.prune.keys import bits
from nnopt_plugins.prune.parts import Desk
from nnopt_plugins.prune.source import Item, Scorer


def wipe(words: Array, keep: Array) -> None:
    """Set `words` to +0 where `keep` is False, in place; all other bits stay (a product by 0 or 1)."""
    raw = bits(words)
    np.multiply(raw, keep, out=raw)


def wipe_below(words: Array, keys: Array, threshold: int) -> None:
    """Set `words` to +0 where their key is below `threshold`, in place.

    Args:
        words: 1-D raw words.
        keys: of |w|, one for each word and of the same size, so that the top bit is free; overwritten.
        threshold: from 1 on.
    """
    signed = keys.view(f"<i{keys.itemsize}")
    np.subtract(keys.dtype.type(threshold - 1), keys, out=keys)  # negative for what stays
    np.right_shift(signed, 8 * keys.itemsize - 1, out=signed)  # all ones for what stays, else 0
    raw = bits(words)
    np.bitwise_and(raw, keys, out=raw)


def _checked(flags: Array, words: Array, source: Granularity, method: str) -> Array:
    """What a granularity says of `words`. Raises ComponentError unless it is a boolean for each."""
    if not isinstance(flags, np.ndarray) or flags.dtype != np.bool_ or flags.shape != words.shape:
        got = f"{getattr(flags, 'dtype', type(flags).__name__)} of shape {list(np.shape(flags))}"
        fault = f"gave {got} from {method}() for {len(words)} weights, not a boolean for each"
        raise ComponentError(source, fault)
    return flags


class CutEdit:
    """Prunes the groups of one tensor that a cut says.

    Args:
        cut: the cut of all tensors that compete.
        tensor: this one's place among them.
        item: this one.
        scorer: that made the keys for the cut.
        grouping: of the weights.
        desk: scratch space, shared by all edits of a pass.
    """

    def __init__(
        self, cut: Cut, tensor: int, item: Item, scorer: Scorer, grouping: Grouping, desk: Desk
    ) -> None:
        self._cut = cut
        self._ties = cut.group if tensor == cut.tensor else math.inf if tensor < cut.tensor else 0
        self._item = item
        self._scorer = scorer
        self._grouping = grouping
        self._desk = desk
        self._per_band = scorer.per_band(item.weight.shape)
        self._by_bits = scorer.key.name == item.weight.dtype.name
        self.unit = scorer.unit(item.weight.shape)

    def __call__(self, words: Array, start: int) -> None:
        threshold = self._cut.key
        if threshold == 0:
            return
        keys = self._scorer.keys(words, self._item, start, self._desk)
        ties = self._ties - start // self.unit * self._per_band  # groups of this chunk whose ties go
        first = int(min(max(ties, 0), len(keys)))
        if self._by_bits:
            wipe_below(words[:first], keys[:first], threshold + 1)
            wipe_below(words[first:], keys[first:], threshold)
            return
        keep = self._desk.array("keep", len(keys), "?")
        np.greater(keys[:first], threshold, out=keep[:first])
        np.greater_equal(keys[first:], threshold, out=keep[first:])
        wide = self._grouping.spread(keep, self._item.weight.shape, len(words))
        wipe(words, _checked(wide, words, self._grouping, "spread"))


class PatternEdit:
    """Makes one tensor meet a pattern.

    Args:
        item: the tensor.
        scorer: makes one key for each element.
        pattern: the rule.
        desk: scratch space, shared by all edits of a pass.
        finite: whether no weight is known to have to stay, which saves looking.
    """

    def __init__(
        self, item: Item, scorer: Scorer, pattern: Pattern, desk: Desk, finite: bool = False
    ) -> None:
        self._item = item
        self._scorer = scorer
        self._pattern = pattern
        self._finite = finite
        self._desk = desk
        self.unit = max(1, pattern.unit(item.weight.shape))

    def __call__(self, words: Array, start: int) -> None:
        keys = self._scorer.keys(words, self._item, start, self._desk)
        key = self._scorer.key
        stays = keys >= key.limit if not self._finite and keys.max() >= key.limit else None
        if stays is not None:
            keys[stays] = key.last  # all that must stay is alike
        keep = self._pattern.keep(keys, self._item.weight.shape)
        keep = _checked(keep, words, self._pattern, "keep")
        wipe(words, keep if stays is None else keep | stays)
