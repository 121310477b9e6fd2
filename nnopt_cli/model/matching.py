"""Which tensors of two models belong together, by name and shape."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nnopt_cli.model.model import Model

CLOSE = 0.6  # similarity (difflib's ratio) from which a name is offered as a rename
_MOST = 400  # left-over names beyond which renames are not searched, as the search is quadratic


@dataclass(frozen=True)
class Matching:
    """Which names of two models belong together.

    Attributes:
        pairs: names of tensors that are in both, A's and B's, in A's order.
        only_a: names that only A has.
        only_b: names that only B has.
        added: what B's names have in front that A's do not (`model.`), where that is how they differ.
        removed: the other way round.
        renames: for a name that only A has, close names of the same shape that only B has.
    """

    pairs: tuple[tuple[str, str], ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    added: str
    removed: str
    renames: Mapping[str, tuple[str, ...]]


def match_names(a: Model, b: Model) -> Matching:
    """Pair the tensors of two models by name, seeing through one prefix that only one of them has."""
    left_a = [name for name in a.weights if name not in b.weights]
    left_b = [name for name in b.weights if name not in a.weights]
    added, removed = _prefix(left_a, left_b), _prefix(left_b, left_a)
    added, removed = (added, "") if added else ("", removed)
    partner = {name: name for name in a.weights if name in b.weights}
    free = set(left_b)
    for name in left_a if added or removed else ():
        other = added + name if added else name.removeprefix(removed)
        if other in free:
            partner[name] = other
            free.discard(other)
    only_a = tuple(name for name in left_a if name not in partner)
    only_b = tuple(name for name in left_b if name in free)
    pairs = tuple((name, partner[name]) for name in a.weights if name in partner)
    return Matching(pairs, only_a, only_b, added, removed, _renames(a, b, only_a, only_b))


def _prefix(short: Sequence[str], long: Sequence[str]) -> str:
    """The prefix that turns most of `short` into names of `long`; empty if that is under half of them."""
    known = set(short)
    votes: Counter[str] = Counter()
    for name in long:
        for dot in (i + 1 for i, char in enumerate(name) if char == "."):
            if name[dot:] in known:
                votes[name[:dot]] += 1
    if not votes:
        return ""
    prefix, hits = votes.most_common(1)[0]
    return prefix if 2 * hits >= len(short) else ""


def _renames(a: Model, b: Model, only_a: Sequence[str], only_b: Sequence[str]) -> dict[str, tuple[str, ...]]:
    if not 0 < len(only_a) * len(only_b) <= _MOST**2:
        return {}
    found = {}
    for name in only_a:
        alike = [other for other in only_b if b.weights[other].shape == a.weights[name].shape]
        if near := difflib.get_close_matches(name, alike, n=2, cutoff=CLOSE):
            found[name] = tuple(near)
    return found
