"""The same selection in torch, on any device: the tensors are moved there once, and the cut comes back.

Keys of magnitudes are non-negative as signed integers of the same size, so torch's signed types
hold them. Per-piece counts stay on the device; the host waits for one small vector of them, and for
the keys in the bracket.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from nnopt_cli import Array
from nnopt_plugins.prune.bracket import CAP_BYTES, SMALL, Cut
from nnopt_plugins.prune.keys import SCORE, Key
from nnopt_plugins.prune.noise import mix
from nnopt_plugins.prune.parts import Desk
from nnopt_plugins.prune.quantile import guess
from nnopt_plugins.prune.source import Item, Source

if TYPE_CHECKING:
    import torch

PIECE = 1 << 28  # elements at a time: 2-4 GB of temporaries
SAMPLES = 1 << 18
_RAW = {"float16": "int16", "bfloat16": "int16", "float32": "int32", "float64": "int64"}


def fits(source: Source, device: str) -> str:
    """Why `source` cannot be selected on `device`; empty if it can."""
    import torch

    if source.scorer.key.name == SCORE.name:
        return f"{source.scorer.criterion.name} scores and groups of weights are computed there only"
    kind = torch.device(device).type
    if kind == "mps" and source.scorer.key.word == "<u8":
        return "mps has no 64-bit floats"
    if kind == "cuda":
        free = torch.cuda.mem_get_info(torch.device(device))[0]
        needed = source.nbytes + 12 * min(PIECE, max(item.weight.numel for item in source.items))
        if needed > free:
            return f"{needed / 1e9:.1f} GB are needed on {device} and {free / 1e9:.1f} GB are free"
    return ""


def keys(tensor: torch.Tensor, key: Key) -> torch.Tensor:
    """Keys of |w| of a 1-D tensor, as signed integers of the size of `key`."""
    import torch

    name = str(tensor.dtype).removeprefix("torch.")
    wide = tensor if name == key.name else tensor.to(getattr(torch, key.name))
    raw = getattr(torch, _RAW[key.name])
    return wide.view(raw) & (key.last >> 1)


def apply(tensor: torch.Tensor, cut: Cut, key: Key, place: int) -> None:
    """Prune a 1-D tensor in place by `cut`, as tensor number `place` of those that compete."""
    for start, piece in _pieces(tensor):
        found = keys(piece, key)
        gone = found < cut.key
        ties = cut.group - start if place == cut.tensor else len(piece) if place < cut.tensor else 0
        if ties > 0:
            gone[:ties] |= found[:ties] == cut.key
        piece.masked_fill_(gone, 0)


class DeviceFinder:
    """Finds the cut for `source` on `device`; same result as `Finder`, bit for bit.

    Args:
        source: whose weights; each element competes alone, by magnitude.
        device: torch's name of it.
        seed: of the sample.
        watch: called with an item and its words if it holds weights that are not finite.
        tensors: the weights on the device already, 1-D, in the order of `source.items`.
    """

    def __init__(
        self,
        source: Source,
        device: str,
        seed: int = 0,
        watch: Callable[[Item, Array], object] = lambda item, words: None,
        tensors: list[torch.Tensor] | None = None,
        small: int = SMALL,
    ) -> None:
        self._source = source
        self._key = source.scorer.key
        self._seed = seed
        self._watch = watch
        self._small = small
        self._room = CAP_BYTES // np.dtype(self._key.word).itemsize
        self._tensors = tensors if tensors is not None else [_moved(item, device) for item in source.items]

    def find(self, k: int) -> Cut:
        """The cut that leaves max(k, weights that are zero already) zero, as `Finder.find` does."""
        import torch

        groups, limit = self._source.groups, self._key.limit
        lo, hi = self._bracket(k) if k > 0 else (0, 0)
        below, upto, stays = self._counts(lo, hi, limit)
        self._report(stays)
        movable = groups - int(stays.sum())
        if k <= 0:
            return Cut(0, pruned=int(upto.sum()))
        if k > movable:
            return Cut(limit, pruned=movable)
        if not below.sum() < k <= upto.sum() or upto.sum() - below.sum() > self._room:
            lo, hi = self._bisect(k, limit - 1)
            below, upto, _ = self._counts(lo, hi, limit)
        rank = k - int(below.sum())
        pool = torch.cat([self._inside(tensor, lo, hi) for tensor in self._tensors]) if lo < hi else None
        threshold = lo if pool is None else int(torch.sort(pool).values[rank - 1])
        if pool is not None:
            rank -= int((pool < threshold).sum())
        if threshold == 0:
            return Cut(0, pruned=int(self._counts(0, 0, limit)[1].sum()))
        equal = self._equal(threshold)
        ties = int(equal.sum())
        if rank == ties:
            return Cut(threshold + 1, pruned=k)
        ends = np.cumsum(equal)
        place = int(np.searchsorted(ends, rank))
        nth = rank - (int(ends[place - 1]) if place else 0)
        return Cut(threshold, place, self._nth(place, threshold, nth) + 1, k, ties, rank)

    def _bracket(self, k: int) -> tuple[int, int]:
        """From a stratified sample; one small transfer."""
        import torch

        total = self._source.groups
        if total <= self._small:
            return 0, self._key.limit - 1
        step = total / SAMPLES
        places = (np.arange(SAMPLES) * step).astype(np.int64)
        jitter = mix(np.arange(SAMPLES, dtype=np.uint64), self._seed) % np.uint64(max(1, int(step)))
        places = np.minimum(places + jitter.astype(np.int64), total - 1)
        first, found = 0, []
        for tensor in self._tensors:
            chosen = places[(places >= first) & (places < first + len(tensor))] - first
            first += len(tensor)
            found.append(keys(tensor[torch.from_numpy(chosen).to(tensor.device)], self._key))
        pool = torch.cat(found).cpu().numpy()
        lo, hi = guess([pool[i : i + 256] for i in range(0, len(pool), 256)], k / total, self._key.last)
        return min(lo, self._key.limit - 1), min(hi, self._key.limit - 1)

    def _counts(self, lo: int, hi: int, limit: int) -> tuple[Array, Array, Array]:
        """By tensor: keys below `lo`, up to `hi`, and from `limit` on. The host waits once."""
        import torch

        rows = []
        for tensor in self._tensors:
            row = torch.zeros(3, dtype=torch.int64, device=tensor.device)
            for _, piece in _pieces(tensor):
                found = keys(piece, self._key)
                row += torch.stack([(found < lo).sum(), (found <= hi).sum(), (found >= limit).sum()])
            rows.append(row)
        below, upto, stays = torch.stack(rows).cpu().numpy().T
        return below, upto, stays

    def _bisect(self, k: int, last: int) -> tuple[int, int]:
        """Halve [0, last] around the k-th key until what it holds fits: for data with many equal values."""
        lo, hi, below, upto = 0, last, 0, self._source.groups
        while lo < hi and upto - below > self._room:
            middle = (lo + hi) // 2
            count = int(self._counts(0, middle, last)[1].sum())
            if count >= k:
                hi, upto = middle, count
            else:
                lo, below = middle + 1, count
        return lo, hi

    def _inside(self, tensor: torch.Tensor, lo: int, hi: int) -> torch.Tensor:
        import torch

        found = (keys(piece, self._key) for _, piece in _pieces(tensor))
        return torch.cat([piece[(piece >= lo) & (piece <= hi)] for piece in found])

    def _equal(self, threshold: int) -> Array:
        below, upto, _ = self._counts(threshold, threshold, threshold)
        return upto - below

    def _nth(self, place: int, threshold: int, nth: int) -> int:
        """Flat index of the `nth` key (1-based) of one tensor that equals `threshold`."""
        for start, piece in _pieces(self._tensors[place]):
            hits = (keys(piece, self._key) == threshold).nonzero().reshape(-1)
            if nth <= len(hits):
                return start + int(hits[nth - 1])
            nth -= len(hits)
        raise AssertionError("counted ties are not there")

    def _report(self, stays: Array) -> None:
        for place in np.flatnonzero(stays).tolist():
            item, desk = self._source.items[place], Desk()
            for start, count in item.weight.spans():
                buffer = desk.array("words", count, item.weight.dtype.word)
                self._watch(item, item.weight.chunk(start, count, buffer))


def _moved(item: Item, device: str) -> torch.Tensor:
    return item.weight.torch().reshape(-1).to(device)


def _pieces(tensor: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
    for start in range(0, len(tensor), PIECE):
        yield start, tensor[start : start + PIECE]
