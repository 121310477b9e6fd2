"""What `nnopt export` and `nnopt verify` found: as data, and on a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nnopt_cli.report import numbers
from nnopt_cli.report.build import disk_bytes, is_parameter
from nnopt_cli.report.page import Page
from nnopt_cli.report.record import Row
from nnopt_cli.report.settings import described

if TYPE_CHECKING:
    from rich.console import Console

    from nnopt_cli.graph import Parity
    from nnopt_cli.model.model import Model


class Tried(Row):
    """One run of both sides."""

    inputs: str
    sizes: dict[str, int]
    difference: float | None  # over the largest output; None where it is infinite


class Compared(Row):
    """How two were held against each other."""

    against: str
    measure: str
    difference: float | None
    tolerance: float | None
    snr: float | None  # decibels
    top1: float | None
    trials: list[Tried]
    fault: str | None  # why they are not proven to be the same


class Measured(Row):
    """The metric that decides, on --data."""

    name: str
    before: float
    after: float
    samples: int | None


class Speed(Row):
    """Median seconds of one pass on one thread."""

    before: float  # in PyTorch
    after: float
    batch: int


class Fed(Row):
    """One input or output of the file."""

    name: str
    dtype: str
    shape: list[int | str]


class Exported(Row):
    """One export."""

    input: str
    input_bytes: int  # on disk, all files
    format: str  # the exporter's name
    options: dict[str, Any]
    settings: list[str]
    output: str | None  # None after --dry-run
    files: list[str]
    bytes: int  # all files
    parameters: int
    inputs: list[Fed]  # empty where there is no graph
    steps: list[dict[str, Any]]  # the passes so far
    blake3: str
    runs_in: str
    parity: Compared
    metric: Measured | None
    speed: Speed | None
    notes: list[str]
    seconds: float
    version: str


def compared(parity: Parity) -> Compared:
    """As a record; what is infinite becomes None, as JSON has no word for it."""
    return Compared(
        against=parity.against,
        measure=parity.measure,
        difference=_finite(parity.difference),
        tolerance=parity.tolerance,
        snr=_finite(parity.snr),
        top1=parity.top1,
        trials=[
            Tried(inputs=t.inputs, sizes=t.sizes, difference=_finite(t.difference)) for t in parity.trials
        ],
        fault=parity.fault,
    )


def _finite(value: float | None) -> float | None:
    return None if value is None or value in (float("inf"), float("-inf")) or value != value else value


def exported(
    model: Model,
    format: str,
    options: Mapping[str, Any],
    runs_in: str,
    parity: Parity,
    *,
    output: str | None,
    files: Sequence[str],
    size: int,
    blake3: str,
    metric: Measured | None,
    speed: Speed | None,
    notes: Sequence[str],
    seconds: float,
    version: str,
) -> Exported:
    """The record of one export.

    Args:
        model: what was exported.
        format: the exporter's name.
        options: its options that are not at their defaults.
        runs_in: what runs the file.
        parity: what verifying gave.
        output: where it went.
        files: names of all files.
        size: bytes of all of them.
        blake3: of the weights that were read.
        metric: on data, before and after.
        speed: before and after.
        notes: what the user should know.
        seconds: wall time of the command.
        version: of nnopt.
    """
    unique = model.unique()
    return Exported(
        input=str(model.path),
        input_bytes=disk_bytes(model.container.files),
        format=format,
        options=dict(options),
        settings=described(options),
        output=output,
        files=list(files),
        bytes=size,
        parameters=sum(w.numel for name, w in unique.items() if is_parameter(name, w)),
        inputs=_fed(model) if runs_in else [],
        steps=[dict(step) for step in model.provenance.steps],
        blake3=blake3,
        runs_in=runs_in,
        parity=compared(parity),
        metric=metric,
        speed=speed,
        notes=list(dict.fromkeys((*model.notes, *notes, *parity.notes))),
        seconds=seconds,
        version=version,
    )


def _fed(model: Model) -> list[Fed]:
    from nnopt_cli.graph.sides import program_side
    from nnopt_cli.model.inputs import Dim

    return [
        Fed(
            name=each.name,
            dtype=each.dtype,
            shape=[dim.name if isinstance(dim, Dim) else dim for dim in each.shape],
        )
        for each in program_side(model.program()).spec.inputs
    ]


def render(record: Exported, console: Console, verbose: int = 0) -> None:
    """Show `record` on `console`; `verbose` -1 shows only the path written."""
    page = Page(console)
    if verbose < 0:
        if record.output is not None:
            page.line(record.output)
        return
    page.line(page.text("export", "bold"), " ", page.text(record.input, "bold cyan"))
    rows = [("as", page.joined((record.format, *record.settings)))]
    if record.inputs:
        rows.append(
            ("fed", "; ".join(f"{i.name}={i.dtype}[{','.join(map(str, i.shape))}]" for i in record.inputs))
        )
    rows += proof(page, record.parity)
    before, after = numbers.size(record.input_bytes), numbers.size(record.bytes)
    rows.append(("size", f"{before} before, {after} after"))
    if record.metric is not None:
        m = record.metric
        on = f" on {numbers.plural(m.samples, 'sample')}" if m.samples else ""
        rows.append((m.name, f"{m.before:.4f} before, {m.after:.4f} after{on}"))
    if record.speed is not None:
        s = record.speed
        said = f"{numbers.duration(s.before)} in PyTorch, {numbers.duration(s.after)} in {record.runs_in}"
        rows.append(("latency", f"{said} (batch {s.batch}, one thread)"))
    page.pairs(rows)
    page.notes(record.notes)
    page.gap()
    page.written(record.output)
    others = [name for name in record.files if record.output and not record.output.endswith(name)]
    if others:
        page.prose(f"With it: {', '.join(others)}.", "dim")


def proof(page: Page, parity: Compared) -> list[tuple[str, str]]:
    """What was compared, and what came out, as rows."""
    if parity.measure == "noise":
        snr = "no error at all" if parity.snr is None else f"signal-to-noise ratio {parity.snr:.1f} dB"
        top1 = "" if parity.top1 is None else f"; the same class for {numbers.percent(parity.top1)}"
        rows = [("verified", f"against {parity.against}: {snr}{top1}")]
    else:
        off = "infinite" if parity.difference is None else numbers.number(parity.difference)
        allowed = "" if not parity.tolerance else f" (allowed: {parity.tolerance:g})"
        rows = [("verified", f"against {parity.against}: largest difference {off}{allowed}")]
    if parity.trials:
        fed = ", ".join(dict.fromkeys(trial.inputs for trial in parity.trials))
        sizes: dict[str, set[int]] = {}
        for trial in parity.trials:
            for name, size in trial.sizes.items():
                sizes.setdefault(name, set()).add(size)
        varied = "; ".join(f"{name} {', '.join(map(str, sorted(seen)))}" for name, seen in sizes.items())
        rows.append(("on", page.joined((fed, varied))))
    return rows
