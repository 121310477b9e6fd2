"""One sentence on how two models differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nnopt_cli.report.numbers import count, number, percent, plural, ratio

if TYPE_CHECKING:
    from nnopt_cli.report.comparison import TensorPair


def verdict(rows: Sequence[TensorPair]) -> str:
    """What B is, seen from A: the same, a pruned or a changed copy, or another structure."""
    both = [row for row in rows if row.status in ("identical", "equal", "changed")]
    changed = [row for row in both if row.status == "changed"]
    if len(both) < len(rows):
        return _structure(rows, both)
    if all(row.status == "identical" for row in rows):
        return "A and B hold the same weights, bit for bit."
    if not changed:
        other = plural(sum(row.status == "equal" for row in rows), "tensor")
        return f"A and B hold the same values; {other} of them differ in dtype or in the sign of zeros."
    same_types = all(row.dtype_a == row.dtype_b for row in both)
    counted = [row for row in both if not row.repeated]
    if same_types and not any(row.survivors_changed for row in counted):
        added = sum(row.zeros_added for row in counted)
        revived = sum(row.zeros_revived for row in counted)
        exact = sum(row.changed for row in counted) == added + revived
        if added and not revived:
            return _pruned("B", "A", counted, added, exact, forward=True)
        if revived and not added:
            return _pruned("A", "B", counted, revived, exact, forward=False)
    return _changed(counted) + _masks(counted)


def _structure(rows: Sequence[TensorPair], both: Sequence[TensorPair]) -> str:
    parts: list[str] = []
    for status, words in (("only_a", "only in A"), ("only_b", "only in B"), ("shape", "of another shape")):
        if found := sum(row.status == status for row in rows):
            parts.append(f"{count(found) if parts else plural(found, 'tensor')} {words}")
    differing = count(sum(row.status != "identical" for row in both))
    shared = f"of the {plural(len(both), 'other')}, {differing} differ" if both else "no tensor is in both"
    return f"A and B differ in structure: {', '.join(parts)}; {shared}."


def _pruned(
    less: str, more: str, rows: Sequence[TensorPair], zeroed: int, exact: bool, *, forward: bool
) -> str:
    """`less` is `more` with some weights set to zero, and nothing else done to it."""
    prunable = [row for row in rows if row.prunable]
    total = sum(row.elements for row in prunable)
    zeros = [sum(row.zeros_a for row in prunable), sum(row.zeros_b for row in prunable)]
    before, after = zeros if forward else reversed(zeros)
    rest = "every other weight is bit-identical" if exact else "every other weight has the same value"
    if zeroed != after - before:  # tensors beyond the prunable ones as well
        return f"{less} is {more} with {count(zeroed)} weights set to zero; {rest}."
    if not before:
        share = percent(ratio(after, total))
        return f"{less} is {more} with {share} of its prunable weights set to zero; {rest}."
    return (
        f"{less} is {more} with {count(zeroed)} more weights set to zero (sparsity of the prunable weights "
        f"{percent(ratio(before, total))}, now {percent(ratio(after, total))}); {rest}."
    )


def _changed(rows: Sequence[TensorPair]) -> str:
    elements = sum(row.elements for row in rows)
    unequal = sum(row.unequal for row in rows)
    tensors = sum(row.status == "changed" for row in rows)
    most = max((row.max_abs or 0.0 for row in rows), default=0.0)
    return (
        f"{count(tensors)} of {plural(len(rows), 'tensor')} changed: {count(unequal)} of {count(elements)} "
        f"values, by at most {number(most)}."
    )


def _masks(rows: Sequence[TensorPair]) -> str:
    """What became of the zeros, where A or B is sparse: a fine-tuned model should keep its mask."""
    prunable = [row for row in rows if row.prunable]
    zeros = sum(row.zeros_a for row in prunable)
    revived = sum(row.zeros_revived for row in prunable)
    added = sum(row.zeros_added for row in prunable)
    if not zeros:
        return f" {count(added)} of A's prunable weights are zero in B." if added else ""
    if revived:
        return f" Of the {count(zeros)} zeros among A's prunable weights, {count(revived)} are not zero in B."
    kept = f" All {count(zeros)} zeros among A's prunable weights are zero in B"
    return f"{kept}, and {count(added)} more." if added else f"{kept}."
