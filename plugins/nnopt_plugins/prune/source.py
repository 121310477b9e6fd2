"""From words to keys: a criterion and a granularity applied to chunks of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nnopt_cli import CHUNK_BYTES, Array, ComponentError, Criterion, Grouping, Weight, Where
from nnopt_plugins.prune.keys import SCORE, Key, floats, magnitude_key, magnitudes, scores_to_keys, zero
from nnopt_plugins.prune.parts import Desk, Part


@dataclass(frozen=True, slots=True)
class Item:
    """A tensor to prune, under the model's first name for it, and its place among the model's tensors."""

    name: str
    weight: Weight
    index: int

    def where(self, start: int, seed: int) -> Where:
        return Where(self.name, self.index, start, seed)


def key_for(criterion: Criterion, items: Sequence[Item], grouping: Grouping | None = None) -> Key:
    """The key type in which the groups of `items` compete."""
    alone = grouping is None or all(grouping.unit(item.weight.shape) == 1 for item in items)
    return (
        magnitude_key(item.weight.dtype.name for item in items) if criterion.by_magnitude and alone else SCORE
    )


class Scorer:
    """Turns words into keys: one for each group of `grouping`, or for each element without one."""

    def __init__(self, criterion: Criterion, key: Key, seed: int, grouping: Grouping | None = None) -> None:
        self.criterion = criterion
        self.key = key
        self.seed = seed
        self._grouping = grouping
        self._sizes: dict[tuple[int, ...], tuple[Array, Array]] = {}

    def unit(self, shape: tuple[int, ...]) -> int:
        """Elements in a band; 1 where every element competes alone."""
        return max(1, self._grouping.unit(shape)) if self._grouping else 1

    def per_band(self, shape: tuple[int, ...]) -> int:
        """Groups in a band."""
        return 1 if self.unit(shape) == 1 else len(self._band_sizes(shape)[0])

    def keys(self, words: Array, item: Item, start: int, desk: Desk) -> Array:
        """Keys of the groups in `words`, the elements of `item` from flat index `start` on."""
        dtype, shape = item.weight.dtype.name, item.weight.shape
        alone = self.unit(shape) == 1
        if alone and self.key.name != SCORE.name:
            return magnitudes(words, dtype, self.key, desk.array("keys", len(words), self.key.word))
        values = floats(words, dtype).view()
        values.flags.writeable = False  # a criterion that changed them would change the model
        with np.errstate(invalid="ignore", over="ignore"):
            scores = np.asarray(self.criterion.score(values, item.where(start, self.seed)))
        if scores.shape != values.shape or scores.dtype.kind not in "fiub":
            raise ComponentError(
                self.criterion,
                f"gave {scores.dtype} scores of shape {list(scores.shape)} for {len(values)} weights of "
                f"{item.name}; there has to be one real number for each",
            )
        zeros, never = zero(words, dtype), ~np.isfinite(values)
        if alone:
            return scores_to_keys(scores, zeros, never)
        return self._grouped(scores, zeros, never, shape)

    def _grouped(self, scores: Array, zeros: Array, never: Array, shape: tuple[int, ...]) -> Array:
        assert self._grouping is not None
        gather = self._grouping.gather
        with np.errstate(invalid="ignore", over="ignore"):
            means = np.array(gather(np.add, scores.astype("<f8"), shape), "<f8")
        full, last = self._band_sizes(shape)
        unit = self.unit(shape)
        groups = -(-len(scores) // unit) * len(full)
        if means.shape != (groups,):
            raise ComponentError(
                self._grouping, f"gathered {list(means.shape)} groups of {len(scores)} weights, not {groups}"
            )
        bands = means.reshape(-(-len(scores) // unit), len(full))
        whole = len(scores) // unit
        bands[:whole] /= full
        bands[whole:] /= last
        alive = gather(np.logical_or, ~zeros, shape)
        return scores_to_keys(means, ~alive, gather(np.logical_or, never, shape))

    def _band_sizes(self, shape: tuple[int, ...]) -> tuple[Array, Array]:
        """Elements in each group of a whole band, and of the shorter band at the end if there is one."""
        if shape not in self._sizes:
            assert self._grouping is not None
            unit, count = self.unit(shape), int(np.prod(shape))
            full = self._grouping.gather(np.add, np.ones(min(unit, count), "<f8"), shape)
            rest = count % unit
            last = (
                self._grouping.gather(np.add, np.ones(rest, "<f8"), shape) if rest and count > unit else full
            )
            self._sizes[shape] = np.asarray(full), np.asarray(last)
        return self._sizes[shape]


class Source:
    """The keys of all groups of some tensors, read chunk by chunk as often as asked."""

    def __init__(self, items: Sequence[Item], scorer: Scorer, chunk_bytes: int = CHUNK_BYTES) -> None:
        self.items = [item for item in items if item.weight.numel]
        self.scorer = scorer
        self.units = [scorer.unit(item.weight.shape) for item in self.items]
        self._per_band = [scorer.per_band(item.weight.shape) for item in self.items]
        self.sizes = [
            -(-item.weight.numel // unit) * per_band
            for item, unit, per_band in zip(self.items, self.units, self._per_band, strict=True)
        ]
        self.parts: list[Part] = []
        for tensor, (item, unit) in enumerate(zip(self.items, self.units, strict=True)):
            for start, count in item.weight.spans(unit, chunk_bytes):
                self.parts.append(Part(len(self.parts), tensor, start, count))

    @property
    def groups(self) -> int:
        """How many groups compete."""
        return sum(self.sizes)

    @property
    def nbytes(self) -> int:
        """Bytes that one pass reads."""
        return sum(item.weight.nbytes for item in self.items)

    def words(self, part: Part, desk: Desk) -> Array:
        """The words of `part`, to be read only."""
        weight = self.items[part.tensor].weight
        return weight.chunk(part.start, part.count, desk.array("words", part.count, weight.dtype.word))

    def keys(self, part: Part, desk: Desk) -> Array:
        """The keys of the groups of `part`."""
        return self.scorer.keys(self.words(part, desk), self.items[part.tensor], part.start, desk)

    def first_group(self, part: Part) -> int:
        """Place of the first group of `part` among its tensor's."""
        return part.start // self.units[part.tensor] * self._per_band[part.tensor]
