"""What is in a model file, as data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from nnopt_cli.report.build import disk_bytes, is_parameter
from nnopt_cli.report.cost import CostTable, cost_table
from nnopt_cli.report.record import Histogram, Row
from nnopt_cli.report.text import encodable

if TYPE_CHECKING:
    from nnopt_cli.formats.weight import Weight
    from nnopt_cli.model.model import Model
    from nnopt_cli.model.naming import Selection
    from nnopt_cli.model.stats import Stats
    from nnopt_cli.run import Run

Order = Literal["file", "name", "size", "sparsity", "norm", "max"]


class TensorFigures(Row):
    """One tensor. What was not measured, and a norm beyond float64, is None."""

    name: str
    dtype: str
    shape: list[int]
    elements: int
    prunable: bool
    reason: str = ""  # why it is not prunable
    tied_to: str | None = None  # the first of its names, if this is a later one
    zeros: int | None = None
    nonfinite: int | None = None  # NaN or infinite elements
    l1: float | None = None  # as the other two, of the finite elements
    l2: float | None = None
    max_abs: float | None = None
    patterns: tuple[str, ...] = ()  # N:M patterns along dimension 1 that chance does not explain
    blake3: str | None = None  # of its elements

    @property
    def sparsity(self) -> float | None:
        """Fraction of its elements that are zero."""
        return None if self.zeros is None else self.zeros / max(1, self.elements)


class Inspection(Row):
    """A model file."""

    path: str
    format: str
    files: list[str]
    bytes: int  # on disk, all files
    key: list[str]  # where in the file's tree the weights lie
    prefix: str  # what all names in the file begin with, left out of the names here
    shards: int | None
    rebuilt: bool  # the file held objects, of which only the tensors were taken
    metadata: dict[str, str]
    provenance: dict[str, Any] | None  # nnopt's own record, if the file carries one; as claimed by the file
    blake3: str | None  # of the weights: the same for every container format; None if not all were read
    tensors_in_file: int  # names, tied ones included
    parameters: int  # of the tensors listed, as the other figures: floating, without running statistics
    nonzeros: int | None
    prunable: int
    prunable_zeros: int | None
    nonfinite: int | None
    rule: str  # how it was decided which weights are prunable
    tensors: list[TensorFigures]
    cost: CostTable | None = None  # of the graph, where that was asked for
    histograms: list[Histogram] = Field(default_factory=list)  # of the largest tensors, for a report only
    notes: list[str]
    version: str


def inspect_model(
    model: Model,
    run: Run,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    stats: bool = True,
    order: Order = "file",
    cost: bool = False,
) -> Inspection:
    """Look at a model: its headers, and with `stats` one streaming pass over the chosen tensors' data.

    `cost` adds what each layer of the graph costs.

    Raises:
        NnoptError: `cost` of a model without a graph.
        UsageError: a glob of `include` or `exclude` matches no tensor.
        UnreadableError: a file ends inside a tensor's data.
    """
    from nnopt_cli import __version__
    from nnopt_cli.model.hashing import content_hash
    from nnopt_cli.model.naming import select
    from nnopt_cli.model.stats import measure_all

    if cost:
        model.require("graph")
    chosen = _chosen(model, include, exclude)
    first = {id(weight): name for name, weight in model.unique().items()}
    origins = list(dict.fromkeys(first[id(model.weights[name])] for name in chosen))
    measured = measure_all(model, origins, run) if stats else {}
    selection = select(model)
    whole = len(measured) == len(first)
    rows = [
        _figures(name, first[id(model.weights[name])], model.weights[name], selection, measured)
        for name in chosen
    ]
    parameters = [name for name in origins if is_parameter(name, model.weights[name])]
    prunable = [name for name in origins if name in set(selection.names)]
    elements = {name: model.weights[name].numel for name in origins}
    container = model.container
    return Inspection(
        path=encodable(str(model.path)),
        format=container.format,
        files=[encodable(str(path)) for path in container.files],
        bytes=disk_bytes(container.files),
        key=list(container.key),
        prefix=container.prefix,
        shards=len(set(container.shards.values())) if container.shards else None,
        rebuilt=container.rebuilt,
        metadata=dict(container.metadata),
        provenance=_provenance(model),
        blake3=content_hash(model, measured) if whole else None,
        tensors_in_file=len(model.weights),
        parameters=sum(elements[name] for name in parameters),
        nonzeros=sum(elements[name] - measured[name].zeros for name in parameters) if stats else None,
        prunable=sum(elements[name] for name in prunable),
        prunable_zeros=sum(measured[name].zeros for name in prunable) if stats else None,
        nonfinite=sum(figures.nonfinite for figures in measured.values()) if stats else None,
        rule=selection.rule,
        tensors=ordered(rows, order),
        cost=cost_table(model.program()) if cost else None,
        notes=list(model.notes),
        version=__version__,
    )


def ordered(rows: Sequence[TensorFigures], order: Order) -> list[TensorFigures]:
    """Rows by name, or with the largest of a figure first; equal ones stay in the file's order."""
    if order == "file":
        return list(rows)
    if order == "name":
        return sorted(rows, key=lambda row: row.name)
    figure = {"size": "elements", "sparsity": "sparsity", "norm": "l2", "max": "max_abs"}[order]
    return sorted(rows, key=lambda row: -(getattr(row, figure) or 0))


def _chosen(model: Model, include: Sequence[str], exclude: Sequence[str]) -> list[str]:
    from nnopt_cli.model.naming import match

    included = {name for glob in include for name in match(model.weights, glob)}
    excluded = {name for glob in exclude for name in match(model.weights, glob)}
    return [name for name in model.weights if (not include or name in included) and name not in excluded]


def _figures(
    name: str, origin: str, weight: Weight, selection: Selection, measured: Mapping[str, Stats]
) -> TensorFigures:
    row = TensorFigures(
        name=name,
        dtype=weight.dtype.name,
        shape=list(weight.shape),
        elements=weight.numel,
        prunable=origin not in selection.left_out,
        reason=selection.left_out.get(origin, ""),
        tied_to=None if origin == name else origin,
    )
    stats = measured.get(origin)
    if stats is None:
        return row
    seen: dict[str, Any] = {"zeros": stats.zeros, "blake3": stats.blake3, "patterns": stats.patterns}
    if weight.dtype.kind in ("float", "float8", "complex"):
        norms = {"l1": stats.l1, "l2": stats.l2, "max_abs": stats.max_abs}
        seen |= {key: value if math.isfinite(value) else None for key, value in norms.items()}
        seen["nonfinite"] = stats.nonfinite
    return row.model_copy(update=seen)


def _provenance(model: Model) -> dict[str, Any] | None:
    made = model.provenance
    if not (made.steps or made.inputs or made.version):
        return None
    return {
        "version": made.version,
        "steps": list(made.steps),
        "inputs": list(made.inputs),
        "results": dict(made.results),
    }
