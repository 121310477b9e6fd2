"""Exact selection of the k least important groups out of any number, in bounded memory.

A sample brackets the k-th smallest key; one pass counts what lies below the bracket and collects
what lies inside; the k-th key is then selected exactly among the collected. If the bracket missed, or
holds more than fits (many equal keys is a real case), histograms narrow it first. What is random here
decides how much work is done, never the result.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from nnopt_cli import Array, in_threads
from nnopt_plugins.prune.keys import as_floats
from nnopt_plugins.prune.parts import Desk, Part
from nnopt_plugins.prune.quantile import guess, nth, sample
from nnopt_plugins.prune.source import Item, Source

SMALL = 1 << 18  # groups that are collected outright
CAP_BYTES = 1 << 26  # of collected keys
BINS = 1 << 16

Tick = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Cut:
    """What is pruned: groups with keys below `key`, and those equal to it that come first.

    Attributes:
        key: the threshold.
        tensor, group: groups whose key equals `key` go if they come before this place
            in the order (tensor, group); (-1, 0) for none.
        pruned: how many groups are zero or pruned afterwards.
        ties: groups whose key equals the threshold, if some of them stay and some go, else 0.
        ties_pruned: of those, how many go.
    """

    key: int
    tensor: int = -1
    group: int = 0
    pruned: int = 0
    ties: int = 0
    ties_pruned: int = 0


@dataclass
class Survey:
    """What one pass saw around a bracket.

    Attributes:
        below: keys under the bracket.
        inside: keys in it, by part.
        collected: the keys in it, by part in group order; None if they were too many.
    """

    below: int = 0
    inside: dict[int, int] = field(default_factory=dict)
    collected: dict[int, Array] | None = field(default_factory=dict)

    @property
    def total(self) -> int:
        return sum(self.inside.values())


@dataclass
class Finder:
    """Finds the cut for a source.

    Attributes:
        source: whose groups.
        seed: of the sample.
        threads: for the passes.
        watch: called in the first pass over everything with the tensor and words of each chunk
            that holds keys that must stay, from several threads.
        tick: told the bytes read.
        cap_bytes: what collected keys may take.
    """

    source: Source
    seed: int = 0
    threads: int = 1
    watch: Callable[[Item, Array], object] = lambda item, words: None
    tick: Tick = lambda done: None
    cap_bytes: int = CAP_BYTES
    small: int = SMALL
    _watched: bool = False
    _desk: Desk = field(default_factory=Desk)

    def find(self, k: int) -> Cut:
        """The cut that leaves max(k, groups that are zero already) groups zero.

        Groups that must stay (keys from the limit on) do, even if fewer than `k` then go.
        """
        key = self.source.scorer.key
        lo, hi = self._bracket(k)
        while True:
            seen = self._survey(lo, hi)
            rank = k - seen.below  # 1-based, inside the bracket
            if rank <= 0 < k:
                lo, hi, inside, rank = 0, lo - 1, seen.below, k
            elif rank > seen.total:
                rank -= seen.total
                lo, hi, inside = hi + 1, key.last, self.source.groups - seen.below - seen.total
            elif lo == hi or seen.collected is not None:
                return self._finish(seen, lo, k)
            else:
                inside = seen.total
            if inside * np.dtype(key.word).itemsize > self.cap_bytes:
                lo, hi = self._narrow(lo, hi, rank)

    def _bracket(self, k: int) -> tuple[int, int]:
        """First guess: keys from `lo` to `hi`, both included, that hold the k-th smallest."""
        source, last = self.source, self.source.scorer.key.last
        if k <= 0:
            return 0, 0
        if source.groups <= self.small:
            return 0, last
        runs = sample(source, self.seed, self._desk)
        if not runs:
            return self._narrow(0, last, k)
        return guess(runs, k / source.groups, last)

    def _survey(self, lo: int, hi: int) -> Survey:
        """Count below and inside; collect inside, unless there is only one value or too much."""
        source, key = self.source, self.source.scorer.key
        seen, lock = Survey(), threading.Lock()
        room = self.cap_bytes // np.dtype(key.word).itemsize
        seen.collected = {} if hi > lo else None
        word = np.dtype(key.word).type

        def work(part: Part) -> None:
            nonlocal room
            keys = source.keys(part, self._desk)
            if not self._watched and keys.max() >= key.limit:
                self.watch(source.items[part.tensor], source.words(part, self._desk))
            seen_as = as_floats(keys, hi)
            first, last = np.array([lo, hi], word).view(seen_as.dtype)
            mask = np.less_equal(seen_as, last, out=self._desk.array("mask", len(keys), "?"))
            below = 0
            if lo > 0:
                under = np.less(seen_as, first, out=self._desk.array("under", len(keys), "?"))
                below = int(np.count_nonzero(under))
                mask ^= under
            found = None
            if seen.collected is not None:
                found = keys.take(np.flatnonzero(mask))  # faster than keys[mask] where few are in
            inside = int(np.count_nonzero(mask)) if found is None else len(found)
            with lock:
                seen.below += below
                seen.inside[part.index] = inside
                room -= inside
                if room < 0:
                    seen.collected = None
                if found is not None and inside and seen.collected is not None:
                    seen.collected[part.index] = found
            self.tick(part.count * source.items[part.tensor].weight.dtype.itemsize)

        in_threads(self.threads, source.parts, work)
        self._watched = True
        return seen

    def _narrow(self, lo: int, hi: int, rank: int) -> tuple[int, int]:
        """Shrink the bracket around the `rank`-th key inside it until what it holds fits, or is one value."""
        room = self.cap_bytes // np.dtype(self.source.scorer.key.word).itemsize
        while lo < hi:
            shift = max(0, (hi - lo).bit_length() - (BINS.bit_length() - 1))
            counts = self._histogram(lo, hi, shift)
            ends = np.cumsum(counts)
            bin_ = int(np.searchsorted(ends, rank))
            rank -= int(ends[bin_ - 1]) if bin_ else 0
            lo, hi = lo + (bin_ << shift), min(hi, lo + ((bin_ + 1) << shift) - 1)
            if counts[bin_] <= room:
                break
        return lo, hi

    def _histogram(self, lo: int, hi: int, shift: int) -> Array:
        """Counts of keys in bins of 2^shift, from `lo` to `hi`."""
        source, lock = self.source, threading.Lock()
        word = np.dtype(source.scorer.key.word).type
        counts = np.zeros(((hi - lo) >> shift) + 1, np.int64)

        def work(part: Part) -> None:
            nonlocal counts
            keys = source.keys(part, self._desk)
            inside = keys[(keys >= word(lo)) & (keys <= word(hi))]
            found = np.bincount(((inside - word(lo)) >> word(shift)).astype(np.int64), minlength=len(counts))
            with lock:
                counts += found

        in_threads(self.threads, source.parts, work)
        return counts

    def _finish(self, seen: Survey, lo: int, k: int) -> Cut:
        """Select exactly inside a bracket that holds the k-th key."""
        if k <= 0:
            return Cut(0, pruned=seen.total)
        rank, equal = k - seen.below, dict(seen.inside)
        threshold = lo
        if seen.collected is not None:
            threshold, smaller = nth(list(seen.collected.values()), rank, lo)
            rank -= smaller
            equal = {i: int(np.count_nonzero(keys == threshold)) for i, keys in seen.collected.items()}
        ties = sum(equal.values())
        limit = self.source.scorer.key.limit
        if threshold >= limit:  # fewer than k may go: all of these do
            return Cut(limit, pruned=self._count_below(limit))
        if threshold == 0:
            return Cut(0, pruned=ties)
        if rank == ties:
            return Cut(threshold + 1, pruned=k)
        tensor, group = self._place(equal, threshold, rank)
        return Cut(threshold, tensor, group, k, ties, rank)

    def _place(self, equal: dict[int, int], threshold: int, rank: int) -> tuple[int, int]:
        """Tensor and group right after the `rank`-th key that equals `threshold`, in order."""
        for part in self.source.parts:
            found = equal.get(part.index, 0)
            if rank <= found:
                keys = self.source.keys(part, self._desk)
                at = int(np.flatnonzero(keys == threshold)[rank - 1])
                return part.tensor, self.source.first_group(part) + at + 1
            rank -= found
        raise AssertionError("the file changed while it was read")

    def _count_below(self, key: int) -> int:
        seen = self._survey(key, key)
        return seen.below
