"""Make the result record of a pass from what the writer counted: nothing is read a second time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnopt_cli.report.record import Input, Record, Shrunk, TensorRow, Totals, Trained
from nnopt_cli.report.settings import described

if TYPE_CHECKING:
    from nnopt_cli.formats.tally import Tally
    from nnopt_cli.formats.weight import Weight
    from nnopt_cli.model.io import Saved
    from nnopt_cli.model.model import Model
    from nnopt_cli.run import Run

SHRUNK = "shrunk"  # the fact by which a pass reports a change of structure, shaped like `Shrunk`
TRAINING = "training"  # the fact by which a pass reports a training, shaped like `Trained`
STATISTICS = ("running_mean", "running_var")  # buffers that state dicts hold beside the parameters


def build(
    *,
    command: str,
    options: Mapping[str, Any],
    before: Model,
    after: Model,
    saved: Saved,
    run: Run,
    seconds: float,
    peak_bytes: int,
    dry_run: bool,
    settings: Mapping[str, Any] | None = None,
    measured: Saved | None = None,
) -> Record:
    """The record of one pass over one model.

    Args:
        command: the pass's name.
        options: the pass as a recipe table.
        before: the model as it was read.
        after: the model as the pass returned it; its tensors keep their names.
        saved: what `save(after, …)` returned.
        run: where the pass left its selection, notes and facts.
        seconds: wall time of the whole command.
        peak_bytes: peak resident memory of the process.
        dry_run: whether nothing was written.
        settings: what to say of the options, by name; as they stand in `options` if left out.
        measured: what `save(before, None)` returned, where `after` has other tensors than `before`.
    """
    from nnopt_cli import __version__
    from nnopt_cli.model.naming import select

    selection = run.selection or select(after)
    prunable = set(selection.names)
    tallies = saved.tallies
    first = measured.tallies if measured else tallies
    chosen = select(before).names if measured else prunable
    zeros_before = {name: tally.zeros_before for name, tally in first.items()}
    zeros_after = {name: tally.zeros_after for name, tally in tallies.items()}
    source_bytes = disk_bytes(before.container.files)
    return Record(
        command=command,
        options=dict(options),
        settings=described(options if settings is None else settings),
        inputs=[
            Input(
                path=str(before.path),
                format=before.container.format,
                bytes=source_bytes,
                blake3=(measured or saved).blake3,
            )
        ],
        output=None if dry_run or saved.path is None else str(saved.path),
        dry_run=dry_run,
        before=totals(before, zeros_before, chosen, source_bytes, _compressed(before, first, "before")),
        after=totals(after, zeros_after, prunable, saved.bytes, _compressed(after, tallies, "after")),
        rule=selection.rule,
        tensors=_rows(after, tallies, prunable, selection.left_out),
        notes=list(dict.fromkeys((*before.notes, *run.notes, *saved.notes))),
        facts={name: fact for name, fact in run.facts.items() if name not in (SHRUNK, TRAINING)},
        shrunk=Shrunk.model_validate(run.facts[SHRUNK]) if SHRUNK in run.facts else None,
        training=_training(run),
        seconds=seconds,
        peak_bytes=peak_bytes,
        device=run.device,
        version=__version__,
    )


def shrunk_twice(first: Any, second: Any) -> dict[str, Any]:
    """Two changes of structure in a row as one, shaped like `Shrunk`."""
    a, b = Shrunk.model_validate(first), Shrunk.model_validate(second)
    widths = {width.layer: width for width in a.widths}
    for width in b.widths:
        known = widths.get(width.layer)
        widths[width.layer] = known.model_copy(update={"after": width.after}) if known else width
    same_metric = a.metric is not None and b.metric is not None and a.metric_name == b.metric_name
    same_clock = a.latency is not None and b.latency is not None and a.timed_in == b.timed_in
    joined = b.model_copy(
        update={
            "macs": (a.macs[0], b.macs[1]),
            "activation_bytes": (a.activation_bytes[0], b.activation_bytes[1]),
            "latency": (a.latency[0], b.latency[1]) if same_clock and a.latency and b.latency else b.latency,
            "metric": (a.metric[0], b.metric[1]) if same_metric and a.metric and b.metric else b.metric,
            "widths": list(widths.values()),
            "what": a.what if a.what == b.what else "parts",
            "difference": max(a.difference, b.difference),
        }
    )
    return joined.model_dump()


def _training(run: Run) -> Trained | None:
    fact = run.facts.get(TRAINING)
    if not isinstance(fact, dict):
        return None
    return Trained.model_validate({**fact, "samples_per_second": run.timings.get("samples_per_second")})


def is_parameter(name: str, weight: Weight) -> bool:
    """Whether a tensor counts among the parameters: floating, and not a running statistic."""
    return weight.dtype.kind in ("float", "float8") and name.rpartition(".")[2] not in STATISTICS


def totals(
    model: Model, zeros: Mapping[str, int], prunable: Iterable[str], on_disk: int, compressed: int | None
) -> Totals:
    """Sum `zeros` (by first name of each tensor; one left out counts as dense) over a model."""
    unique = model.unique()
    parameters = [name for name, weight in unique.items() if is_parameter(name, weight)]
    chosen = [name for name in prunable if name in unique]
    count = sum(unique[name].numel for name in parameters)
    return Totals(
        parameters=count,
        nonzeros=count - sum(zeros.get(name, 0) for name in parameters),
        prunable=sum(unique[name].numel for name in chosen),
        prunable_zeros=sum(zeros.get(name, 0) for name in chosen),
        bytes=on_disk,
        compressed=compressed,
    )


def disk_bytes(files: Iterable[Path]) -> int:
    """Size of all `files` together; one that is gone by now counts nothing."""
    return sum(path.stat().st_size for path in files if path.exists())


def _compressed(model: Model, tallies: Mapping[str, Tally], side: str) -> int | None:
    """Estimate the data's size after deflate: each tensor's sampled ratio times its bytes."""
    if not any(tally.sampled for tally in tallies.values()):
        return None
    unique = model.unique()
    estimate = 0.0
    for name, tally in tallies.items():
        packed = tally.packed_before if side == "before" else tally.packed_after
        estimate += unique[name].nbytes * (packed / tally.sampled if tally.sampled else 1.0)
    return round(estimate)


def _rows(
    model: Model, tallies: Mapping[str, Tally], prunable: set[str], left_out: Mapping[str, str]
) -> list[TensorRow]:
    first: dict[int, str] = {}
    rows = []
    for name, weight in model.weights.items():
        origin = first.setdefault(id(weight), name)
        tally = tallies[origin]
        rows.append(
            TensorRow(
                name=name,
                dtype=weight.dtype.name,
                shape=list(weight.shape),
                prunable=origin in prunable,
                reason=left_out.get(origin, ""),
                zeros_before=tally.zeros_before,
                zeros_after=tally.zeros_after,
                changed=tally.changed,
                tied_to=None if origin == name else origin,
            )
        )
    return rows
