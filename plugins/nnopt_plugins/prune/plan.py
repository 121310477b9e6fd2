"""Which units go: a share of every group, or of all groups together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from nnopt_cli.graph import Group

Scores = npt.NDArray[np.float64]
Classes = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Ranked:
    """A group with its units' scores.

    Attributes:
        group: units that may go.
        scores: one per unit, larger for more important.
        share: the fraction that goes, where the command line gives this group one of its own.
        whole: how many units it had before the first step, of which shares are counted; as many as now if 0.
    """

    group: Group
    scores: Scores
    share: float | None = None
    whole: int = 0

    def __len__(self) -> int:
        return len(self.scores)

    def count(self, share: float) -> int:
        """How many units go so that in all the fraction `share` of what was there at first is gone."""
        first = max(self.whole, len(self))
        return max(0, len(self) - first + round(share * first))

    def least(self, count: int) -> Classes:
        """The `count` least important units; ties go to the first."""
        order = np.argsort(self.scores, kind="stable")
        return self.group.classes[order[:count]]


def plan(
    ranked: Sequence[Ranked], share: float, scope: Literal["global", "layer"], round_to: int = 1
) -> Classes:
    """The classes that go when the fraction `share` of the units does.

    Every group keeps at least one unit, and where `round_to` is more than 1 a multiple of it (or all
    it has), rounded to the nearest. Under `global`, the scores of each group are divided by their mean
    before they compete.
    """
    wanted = _competing(ranked, share) if scope == "global" else _alone(ranked, share)
    gone = [
        rank.least(_rounded(len(rank), count, round_to)) for rank, count in zip(ranked, wanted, strict=True)
    ]
    return np.concatenate(gone) if gone else np.zeros(0, np.int64)


def _alone(ranked: Sequence[Ranked], share: float) -> list[int]:
    own = [share if r.share is None else r.share for r in ranked]
    return [r.count(fraction) for fraction, r in zip(own, ranked, strict=True)]


def _competing(ranked: Sequence[Ranked], share: float) -> list[int]:
    free = [r for r in ranked if r.share is None]
    if not free:
        return _alone(ranked, share)
    relative = np.concatenate([_relative(r.scores) for r in free])
    owner = np.repeat(np.arange(len(free)), [len(r) for r in free])
    first = sum(max(r.whole, len(r)) for r in free)
    count = max(0, len(relative) - first + round(share * first))
    count = min(count, len(relative) - len(free))
    least = np.argsort(relative, kind="stable")[:count]  # of equal scores, those of earlier groups
    gone = iter(np.bincount(owner[least], minlength=len(free)).tolist())
    return [next(gone) if r.share is None else r.count(r.share) for r in ranked]


def _relative(scores: Scores) -> Scores:
    """Scores as they compete; the best unit of a group never goes, so that others go in its place."""
    out = scores / (scores.mean() or 1.0)
    out[np.argsort(scores, kind="stable")[-1]] = np.inf
    return out


def _rounded(size: int, removed: int, multiple: int) -> int:
    """How many of `size` go so that at least one, and a multiple of `multiple`, stays."""
    kept = max(1, size - removed)
    if multiple > 1 and kept < size:
        kept = min(size, max(multiple, round(kept / multiple) * multiple))
    return size - kept


def search(meets: Callable[[float], bool], steps: int = 24) -> float | None:
    """The smallest share in 0…1 for which `meets(share)` holds, by bisection; None if not even 1 does."""
    if meets(0.0):
        return 0.0
    if not meets(1.0):
        return None
    low, high = 0.0, 1.0
    for _ in range(steps):
        middle = (low + high) / 2
        low, high = (low, middle) if meets(middle) else (middle, high)
    return high
