"""What only a report shows: taken after the work, in bounded memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nnopt_cli.report.record import Histogram, LayerMacs, Record

if TYPE_CHECKING:
    from nnopt_cli.formats.weight import Weight
    from nnopt_cli.model.model import Model

MOST = 24  # tensors whose values are shown; the largest


def with_details(record: Record, before: Model, after: Model) -> Record:
    """The record with histograms of its largest prunable tensors, and with what each layer costs.

    Args:
        record: of one or more passes.
        before: the model as it was read.
        after: the model as the passes left it.
    """
    prunable = [row.name for row in record.tensors if row.prunable and row.tied_to is None and row.numel]
    histograms = pairs_of(
        [
            (name, before.weights[name].origin if name in before.weights else None, after.weights[name])
            for name in prunable
        ]
    )
    return record.model_copy(update={"histograms": histograms, "layer_macs": _macs(before, after)})


def pairs_of(tensors: Sequence[tuple[str, Weight | None, Weight | None]]) -> list[Histogram]:
    """Histograms of the largest tensors, before and after on the same bins, in the order given."""
    from nnopt_cli.model.histogram import reach, spread

    def size(pair: tuple[str, Weight | None, Weight | None]) -> int:
        return max(weight.numel for weight in pair[1:] if weight is not None)

    kept = {name for name, _, _ in sorted(tensors, key=size, reverse=True)[:MOST]}
    out = []
    for name, before, after in tensors:
        both = [weight for weight in (before, after) if weight is not None]
        if name not in kept or any(weight.dtype.kind not in ("float", "float8") for weight in both):
            continue
        far = max(reach(weight) for weight in both)
        if far <= 0:
            continue
        was = spread(before, far) if before is not None else None
        now = spread(after, far) if after is not None else None
        seen = now or was
        assert seen is not None
        out.append(
            Histogram(
                name=name,
                low=seen.low,
                high=seen.high,
                before=list(was.counts) if was else [],
                after=list(now.counts) if now else [],
                zeros_before=was.zeros / max(1, was.seen) if was else None,
                zeros_after=now.zeros / max(1, now.seen) if now else None,
                sampled=any(
                    weight.numel > side.seen
                    for weight, side in ((before, was), (after, now))
                    if weight is not None and side is not None
                ),
            )
        )
    return out


def _macs(before: Model, after: Model) -> list[LayerMacs]:
    """Multiply-accumulates of each layer, where both models have a graph."""
    if before.rung != "graph" or after.rung != "graph":
        return []
    from nnopt_cli.report.cost import cost_table

    first, second = ({row.layer: row.macs for row in cost_table(m.program()).layers} for m in (before, after))
    names = dict.fromkeys((*first, *second))
    return [LayerMacs(layer=n, before=first.get(n), after=second.get(n)) for n in names]
