"""The summary of a pass on a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from nnopt_cli.report import numbers
from nnopt_cli.report.page import Page
from nnopt_cli.report.table import Column
from nnopt_cli.report.training_console import show_training

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from nnopt_cli.report.record import Record, Shrunk, TensorRow

EXTREMES = 5  # sparsest and densest tensors that are shown
KINDS_SHOWN = 4  # kinds of tensor named per reason
ZEROS = (
    "Zeros by themselves make no dense file smaller and no dense kernel faster. The file compresses "
    "better (zip, zstd), and 2:4 sparsity can run on the sparse kernels of recent NVIDIA GPUs. "
    "`nnopt prune --granularity channel` makes a model smaller and faster: it needs the graph, that is "
    "a .pt2, or --arch and --input."
)


def render(record: Record, console: Console, verbose: int = 0) -> None:
    """Show `record` on `console`.

    Args:
        record: what to show; nothing else is looked at.
        console: stdout's; its width, colours and encoding are respected.
        verbose: -1 shows only the path written, 1 every tensor.
    """
    page = Page(console)
    if verbose < 0:
        if record.output is not None:
            page.line(record.output)
        return
    _title(page, record)
    _sizes(page, record)
    if record.training:
        show_training(page, record.training, everything=verbose > 0)
    if record.shrunk:
        _widths(page, record.shrunk, everything=verbose > 0)
    elif not record.training or verbose > 0:
        _layers(page, record, everything=verbose > 0)
        _left_out(page, record)
    if verbose > 0 and record.facts:
        page.heading("Facts")
        page.pairs(pair for key, value in record.facts.items() for pair in _fact(page, key, value))
    page.notes(record.notes)
    page.gap()
    if record.after.nonzeros < record.before.nonzeros and not record.shrunk:
        page.prose(ZEROS, "dim")
        page.gap()
    page.spent(record.seconds, record.peak_bytes, record.device)
    page.written(record.output, dry_run=record.dry_run)


def _title(page: Page, record: Record) -> None:
    names = " + ".join(PurePath(source.path).name or source.path for source in record.inputs)
    page.line(page.text(record.command, "bold"), " ", page.text(names, "bold cyan"))
    page.prose(page.joined(record.settings) or "default settings", "dim")
    page.gap()


def _sizes(page: Page, record: Record) -> None:
    before, after = record.before, record.after
    rows: list[tuple[str | Text, ...]] = [
        _counted("parameters", before.parameters, after.parameters),
        *_computed(record.shrunk),
        _counted("non-zeros", before.nonzeros, after.nonzeros),
        (
            "sparsity of prunable weights",
            numbers.percent(numbers.ratio(before.prunable_zeros, before.prunable)),
            page.text(numbers.percent(numbers.ratio(after.prunable_zeros, after.prunable)), "bold"),
            f"of {numbers.count(after.prunable)}",
        ),
        (
            "sparsity of the whole model",
            numbers.percent(
                1 - numbers.ratio(before.nonzeros, before.parameters) if before.parameters else 0.0
            ),
            numbers.percent(1 - numbers.ratio(after.nonzeros, after.parameters) if after.parameters else 0.0),
            "",
        ),
        _sized("bytes on disk", before.bytes, after.bytes),
    ]
    if before.compressed is not None and after.compressed is not None:
        rows.append(_sized("weights compressed (est.)", before.compressed, after.compressed))
    columns = (
        Column(align="left"),
        Column("before"),
        Column("after"),
        Column(align="left", style="dim", drop=1),
    )
    page.table(columns, rows)


def _computed(shrunk: Shrunk | None) -> list[tuple[str, str, str, str]]:
    if shrunk is None:
        return []
    return [
        _counted("multiply-accumulates", *shrunk.macs),
        _sized("activations, at most", *shrunk.activation_bytes),
        *_timed(shrunk),
        *_judged(shrunk),
    ]


def _judged(shrunk: Shrunk) -> list[tuple[str, str, str, str]]:
    if shrunk.metric is None:
        return []
    before, after = shrunk.metric
    return [(shrunk.metric_name, f"{before:.4f}", f"{after:.4f}", f"{after - before:+.4f}")]


def _timed(shrunk: Shrunk) -> list[tuple[str, str, str, str]]:
    if shrunk.latency is None:
        return []
    before, after = shrunk.latency
    times = f"{before / after:.2f}x as fast"
    return [(f"latency in {shrunk.timed_in}", numbers.duration(before), numbers.duration(after), times)]


def _widths(page: Page, shrunk: Shrunk, *, everything: bool) -> None:
    """The groups that lost most, and those that lost least."""
    rows = sorted(shrunk.widths, key=lambda width: width.after / width.before)
    if not rows:
        return
    few = len(rows) <= 2 * EXTREMES or everything
    page.heading(
        shrunk.what.capitalize(), f"{len(rows)} coupled groups" + ("" if few else ", most cut first")
    )
    shown = rows if few else [*rows[:EXTREMES], *rows[-EXTREMES:]]
    lines: list[tuple[Any, ...]] = []
    for place, width in enumerate(shown):
        if place == EXTREMES and not few:
            lines.append((page.text(page.glyphs.ellipsis, "dim"), "", "", "", ""))
        gone = 1 - width.after / width.before
        counts = numbers.count(width.before), numbers.count(width.after)
        lines.append((width.layer, *counts, numbers.percent(gone), page.bar(gone)))
    columns = (
        Column("rows of", align="left", flexible=True),
        Column("before"),
        Column("after"),
        Column("removed"),
        Column(align="left", drop=2),
    )
    page.table(columns, lines)


def _counted(label: str, before: int, after: int) -> tuple[str, str, str, str]:
    return label, numbers.count(before), numbers.count(after), numbers.change(before, after)


def _sized(label: str, before: int, after: int) -> tuple[str, str, str, str]:
    return label, numbers.size(before), numbers.size(after), numbers.change(before, after)


def _layers(page: Page, record: Record, *, everything: bool) -> None:
    rows = [row for row in record.tensors if row.prunable and row.tied_to is None and row.numel]
    rows.sort(key=lambda row: -row.sparsity)
    if not rows or not any(row.zeros_after for row in rows):
        return
    name, figures = (
        Column("layer", align="left", flexible=True),
        (
            Column("sparsity"),
            Column(align="left", drop=2),
            Column("weights", drop=1),
            Column("shape", align="left", style="dim", drop=3),
        ),
    )
    shown = [_layer(page, row) for row in rows]
    if everything or len(rows) <= 2 * EXTREMES:
        page.heading("Layers", "sparsest first")
        page.table((name, *figures), shown)
        return
    if rows[0].sparsity - rows[-1].sparsity < 5e-4:
        page.heading("Layers", f"each of the {len(rows)} has {numbers.percent(rows[0].sparsity)} zeros")
        return
    page.heading("Layers", f"the {EXTREMES} sparsest and the {EXTREMES} densest of {len(rows)}")
    between = ("", page.text(page.glyphs.ellipsis, "dim"), "", "", "", "")
    labelled = [("sparsest" if i == 0 else "", *row) for i, row in enumerate(shown[:EXTREMES])]
    labelled.append(between)
    labelled += [("densest" if i == 0 else "", *row) for i, row in enumerate(shown[-EXTREMES:])]
    page.table((Column(align="left", style="dim", drop=4), name, *figures), labelled)


def _layer(page: Page, row: TensorRow) -> tuple[Any, ...]:
    share = numbers.percent(row.sparsity)
    return row.name, share, page.bar(row.sparsity), numbers.count(row.numel), page.shape(row.shape)


def _left_out(page: Page, record: Record) -> None:
    groups: dict[str, list[TensorRow]] = {}
    for row in record.tensors:
        if not row.prunable and row.tied_to is None:
            groups.setdefault(row.reason or "not chosen", []).append(row)
    if not groups:
        return
    page.heading("Left out")
    columns = (
        Column("tensors"),
        Column("values"),
        Column("why", align="left"),
        Column("which", align="left", style="dim", flexible=True, cut="end", drop=1),
    )
    page.table(
        columns,
        [
            (
                numbers.count(len(rows)),
                numbers.count(sum(row.numel for row in rows)),
                reason,
                kinds([row.name for row in rows], page.glyphs.times),
            )
            for reason, rows in sorted(groups.items(), key=lambda item: -len(item[1]))
        ],
    )
    page.prose(record.rule, "dim")


def kinds(names: Sequence[str], times: str = "x") -> str:
    """What a group of tensors is: its one name, or `bias x20, weight x19, …` by last name component."""
    if len(names) == 1:
        return names[0]
    found = Counter(name.rpartition(".")[2] for name in names).most_common()
    shown = [f"{leaf} {times}{count}" for leaf, count in found[:KINDS_SHOWN]]
    return ", ".join(shown + ([f"{len(found) - KINDS_SHOWN} more kinds"] if len(found) > KINDS_SHOWN else []))


def _fact(page: Page, key: str, value: Any) -> list[tuple[str, str]]:
    """A figure as one line; a list of tables as one line each."""
    label = key.replace("_", " ")
    if isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
        rows = [
            page.joined(f"{name} {numbers.anything(item)}" for name, item in row.items()) for row in value
        ]
        return [(label if number == 0 else "", row) for number, row in enumerate(rows)]
    return [(label, numbers.anything(value))]
