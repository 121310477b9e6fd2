"""What differs between two models, as data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from nnopt_cli.report.build import disk_bytes, is_parameter
from nnopt_cli.report.record import Histogram, Row
from nnopt_cli.report.text import encodable

if TYPE_CHECKING:
    from nnopt_cli.model.compare import Difference
    from nnopt_cli.model.matching import Matching
    from nnopt_cli.model.model import Model
    from nnopt_cli.run import Run

Status = Literal["identical", "equal", "changed", "shape", "only_a", "only_b"]


class Side(Row):
    """One of the two models; figures are of the tensors that it alone has, too."""

    path: str
    format: str
    bytes: int  # on disk, all files
    key: list[str]
    prefix: str
    tensors: int  # names
    parameters: int  # elements of floating tensors, without running statistics, tied ones once


class TensorPair(Row):
    """One name on both sides. Distances are in float64, over the elements that are finite on both."""

    name: str  # A's name, or B's where only B has it
    name_b: str | None = None  # where B's name differs by a prefix
    status: Status  # equal: the same values, but another dtype or sign of zero
    prunable: bool = False
    repeated: bool = False  # tied, and counted under an earlier name
    dtype_a: str | None = None
    dtype_b: str | None = None
    shape_a: list[int] | None = None
    shape_b: list[int] | None = None
    close: tuple[str, ...] = ()  # names that it may have on the other side
    elements: int = 0
    changed: int = 0  # elements whose bits differ (values, where the dtypes differ)
    unequal: int = 0  # elements whose values differ
    max_abs: float | None = None  # largest |b - a|
    relative: float | None = None  # L2 norm of b - a over that of a
    cosine: float | None = None
    zeros_a: int = 0
    zeros_b: int = 0
    zeros_added: int = 0  # zero in B, not in A
    zeros_revived: int = 0  # zero in A, not in B
    survivors_changed: int = 0  # zero in neither, and changed
    nonfinite: int = 0  # NaN or infinite on either side


class Comparison(Row):
    """Two models."""

    a: Side
    b: Side
    differ: bool  # whether any weight, name, shape or dtype does; how the file holds them does not count
    verdict: str
    rule: str  # how it was decided which weights are prunable
    tensors: list[TensorPair]
    histograms: list[Histogram] = Field(default_factory=list)  # of the largest tensors, for a report only
    notes: list[str]
    version: str

    def having(self, *status: Status) -> list[TensorPair]:
        """The rows of these kinds."""
        return [row for row in self.tensors if row.status in status]


def compare_models(a: Model, b: Model, run: Run) -> Comparison:
    """Compare two models tensor by tensor; both are streamed once, at constant memory.

    Raises UnreadableError where a file ends inside a tensor's data.
    """
    from nnopt_cli import __version__
    from nnopt_cli.model.compare import compare_all
    from nnopt_cli.model.matching import match_names
    from nnopt_cli.model.naming import select
    from nnopt_cli.report.verdict import verdict

    matching = match_names(a, b)
    same = [(x, y) for x, y in matching.pairs if a.weights[x].shape == b.weights[y].shape]
    found = compare_all(a, b, same, run)
    selection = select(a)
    rows = _rows(a, b, matching, found, {id(a.weights[name]) for name in selection.names})
    return Comparison(
        a=_side(a),
        b=_side(b),
        differ=any(row.status != "identical" for row in rows),
        verdict=verdict(rows),
        rule=selection.rule,
        tensors=rows,
        notes=_notes(a, b, matching),
        version=__version__,
    )


def _side(model: Model) -> Side:
    container = model.container
    return Side(
        path=encodable(str(model.path)),
        format=container.format,
        bytes=disk_bytes(container.files),
        key=list(container.key),
        prefix=container.prefix,
        tensors=len(model.weights),
        parameters=sum(w.numel for name, w in model.unique().items() if is_parameter(name, w)),
    )


def _rows(
    a: Model,
    b: Model,
    matching: Matching,
    found: dict[tuple[str, str], Difference],
    prunable: set[int],
) -> list[TensorPair]:
    rows = []
    seen: set[tuple[int, int]] = set()
    for name, other in matching.pairs:
        x, y = a.weights[name], b.weights[other]
        row = TensorPair(
            name=name,
            name_b=None if other == name else other,
            status="shape",
            prunable=id(x) in prunable,
            repeated=(id(x), id(y)) in seen,
            dtype_a=x.dtype.name,
            dtype_b=y.dtype.name,
            shape_a=list(x.shape),
            shape_b=list(y.shape),
        )
        seen.add((id(x), id(y)))
        rows.append(_compared(row, found[name, other]) if (name, other) in found else row)
    for name in matching.only_a:
        x = a.weights[name]
        close = matching.renames.get(name, ())
        rows.append(
            TensorPair(name=name, status="only_a", dtype_a=x.dtype.name, shape_a=list(x.shape), close=close)
        )
    for name in matching.only_b:
        y = b.weights[name]
        close = tuple(own for own, near in matching.renames.items() if name in near)
        rows.append(
            TensorPair(name=name, status="only_b", dtype_b=y.dtype.name, shape_b=list(y.shape), close=close)
        )
    return rows


def _compared(row: TensorPair, found: Difference) -> TensorPair:
    alike = row.dtype_a == row.dtype_b
    status: Status = "changed" if found.unequal else "equal" if found.changed or not alike else "identical"
    figures = {key: getattr(found, key) for key in found.__slots__}
    clean = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in figures.items()}
    return row.model_copy(update={"status": status, **clean})


def _notes(a: Model, b: Model, matching: Matching) -> list[str]:
    notes = [f"A: {note}" for note in a.notes] + [f"B: {note}" for note in b.notes]
    if matching.added:
        notes.append(f"B's names have {matching.added!r} in front; they were compared without it.")
    if matching.removed:
        notes.append(f"A's names have {matching.removed!r} in front; they were compared without it.")
    if a.container.prefix != b.container.prefix:
        notes.append(
            f"In the files, A's names begin with {a.container.prefix!r} and B's with {b.container.prefix!r}; "
            "compared without."
        )
    ties_a, ties_b = _ties(a), _ties(b)
    partner = dict(matching.pairs)
    for group in ties_a:
        if frozenset(partner.get(name, name) for name in group) not in ties_b:
            notes.append(f"Tied in A only: {', '.join(sorted(group))}.")
    back = {other: name for name, other in matching.pairs}
    for group in ties_b:
        if frozenset(back.get(name, name) for name in group) not in ties_a:
            notes.append(f"Tied in B only: {', '.join(sorted(group))}.")
    return notes


def _ties(model: Model) -> Sequence[frozenset[str]]:
    groups: dict[int, list[str]] = {}
    for name, weight in model.weights.items():
        groups.setdefault(id(weight), []).append(name)
    return [frozenset(names) for names in groups.values() if len(names) > 1]
