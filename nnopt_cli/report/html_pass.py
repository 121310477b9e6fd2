"""What a pass, or several, did to a model, as a page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import PurePath
from typing import Any

from nnopt_cli.report import numbers
from nnopt_cli.report.html_charts import Series, bar, chart, histogram, short
from nnopt_cli.report.html_page import Sheet, cards, folded, notes, section, table, text
from nnopt_cli.report.record import Histogram, LayerMacs, Record, Shrunk, TensorRow, Trained

Shown = Callable[[Any], str]


def changed(record: Record) -> Sheet:
    """The page of one pass, or of a recipe's passes together."""
    names = " + ".join(PurePath(source.path).name or source.path for source in record.inputs)
    written = record.output or (
        "nothing was written (--dry-run)" if record.dry_run else "nothing was written"
    )
    parts = [
        f'<p>Result: <span class="name">{text(written)}</span></p>',
        _glance(record),
        section("Before and after", _sizes(record)),
        training(record.training),
        _widths(record.shrunk) if record.shrunk else "",
        _layers(record),
        layer_macs(record.layer_macs),
        histograms(record.histograms),
        notes(record.notes),
        section(
            "Every tensor", folded(f"{len(record.tensors):,} tensors", _tensors(record)), note=record.rule
        ),
        _ending(record),
    ]
    return Sheet(record.command, names, record.settings, parts)


def pairs(record: Record) -> list[tuple[str, float, float, Shown]]:
    """The figures that a record has on both sides: label, before, after, how to say one."""
    before, after, shrunk = record.before, record.after, record.shrunk
    rows: list[tuple[str, float, float, Shown]] = [
        ("parameters", before.parameters, after.parameters, numbers.count),
        ("non-zeros", before.nonzeros, after.nonzeros, numbers.count),
    ]
    if shrunk is not None:
        rows.append(("multiply-accumulates", *shrunk.macs, numbers.count))
        rows.append(("activations, at most", *shrunk.activation_bytes, numbers.size))
    rows.append(("bytes on disk", before.bytes, after.bytes, numbers.size))
    if before.compressed is not None and after.compressed is not None:
        rows.append(("weights compressed (est.)", before.compressed, after.compressed, numbers.size))
    if shrunk is not None and shrunk.latency is not None:
        rows.append((f"latency in {shrunk.timed_in}", *shrunk.latency, numbers.duration))
    return rows


def metrics(record: Record) -> list[tuple[str, float, float]]:
    """The metrics that were measured on both sides: label, before, after."""
    found = []
    if record.shrunk is not None and record.shrunk.metric is not None:
        found.append((record.shrunk.metric_name, *record.shrunk.metric))
    if record.training is not None:
        trained = record.training
        found.append((f"{trained.metric_name}, by training", trained.before, trained.after))
    return found


def _glance(record: Record) -> str:
    items = []
    for label, was, now, say in pairs(record):
        if label in ("parameters", "multiply-accumulates", "bytes on disk") or label.startswith("latency"):
            change = numbers.change(int(was), int(now)) if isinstance(was, int) else ""
            times = f"{was / now:.2f}x as fast" if label.startswith("latency") and now else change
            items.append((label, say(now), f"was {say(was)}{', ' + times if times else ''}"))
    after = record.after
    if after.prunable and not record.shrunk:
        share = numbers.percent(numbers.ratio(after.prunable_zeros, after.prunable))
        items.insert(0, ("sparsity of prunable weights", share, f"of {numbers.count(after.prunable)}"))
    for label, before, now in metrics(record):
        items.append((label, f"{now:.4f}", f"was {before:.4f}, {now - before:+.4f}"))
    return cards(items)


def _sizes(record: Record) -> str:
    rows: list[tuple[str, ...]] = []
    for label, was, now, say in pairs(record):
        top = max(was, now) or 1
        change = numbers.change(int(was), int(now)) if isinstance(was, int) else f"{was / now:.2f}x as fast"
        rows.append((text(label), text(say(was)), text(say(now)), text(change), bar(now / top, was / top)))
    for label, before, now in metrics(record):
        rows.append((text(label), f"{before:.4f}", f"{now:.4f}", f"{now - before:+.4f}", ""))
    before_all, after_all = record.before, record.after
    for label, shares in (
        (
            "sparsity of prunable weights",
            [numbers.ratio(s.prunable_zeros, s.prunable) for s in (before_all, after_all)],
        ),
        (
            "sparsity of the whole model",
            [
                1 - numbers.ratio(s.nonzeros, s.parameters) if s.parameters else 0.0
                for s in (before_all, after_all)
            ],
        ),
    ):
        said = [text(numbers.percent(share)) for share in shares]
        rows.append((text(label), *said, "", bar(shares[1], shares[0])))
    note = '<p class="note">Grey is before, colour is after.</p>'
    return table(("", "before", "after", "", ""), rows, "lrrrb", hide=(3,)) + note


def _widths(shrunk: Shrunk) -> str:
    rows = [
        (
            text(width.layer),
            numbers.count(width.before),
            numbers.count(width.after),
            numbers.percent(1 - numbers.ratio(width.after, width.before)),
            bar(numbers.ratio(width.after, width.before), 1.0),
        )
        for width in shrunk.widths
    ]
    off = f"{shrunk.difference:.1e} of its largest output ({shrunk.dtype})"
    note = f"Coupled groups, by their first layer. From the masked dense graph the result differs by {off}."
    return section(
        shrunk.what.capitalize(),
        table(("rows of", "before", "after", "removed", "kept"), rows, "nrrrb"),
        note=note,
    )


def _layers(record: Record) -> str:
    rows = [row for row in record.tensors if row.prunable and row.tied_to is None and row.numel]
    if not any(row.zeros_after for row in rows):
        return ""
    lines = [
        (
            text(row.name),
            numbers.percent(row.sparsity),
            bar(row.sparsity, numbers.ratio(row.zeros_before, row.numel)),
            numbers.count(row.numel),
            text("\u00d7".join(map(str, row.shape))),
        )
        for row in rows
    ]
    return section(
        "Sparsity of each layer",
        table(("layer", "zeros", "", "weights", "shape"), lines, "nrbrl", hide=(3, 4)),
        note="In the order of the file; grey is what was zero before.",
    )


def layer_macs(rows: Sequence[LayerMacs]) -> str:
    """What each layer costs, before and after."""
    top = max((max(row.before or 0, row.after or 0) for row in rows), default=0)
    if not top:
        return ""
    lines = [
        (
            text(row.layer),
            "" if row.before is None else numbers.count(row.before),
            "" if row.after is None else numbers.count(row.after),
            bar((row.after or 0) / top, (row.before or 0) / top),
        )
        for row in rows
    ]
    body = table(("layer", "before", "after", ""), lines, "nrrb", hide=(1,))
    return section("Cost of each layer", body, note="Multiply-accumulates for one sample; grey is before.")


def histograms(rows: Sequence[Histogram], sides: tuple[str, str] = ("before", "after")) -> str:
    """How the weights of each layer are spread: small charts side by side."""
    if not rows:
        return ""
    shown = []
    for row in rows:
        shares = [
            (side, share) for side, share in zip(sides, (row.zeros_before, row.zeros_after), strict=True)
        ]
        zeros = ", ".join(f"{numbers.percent(s)} {side}".strip() for side, s in shares if s is not None)
        said = f"zeros: {zeros}" + (" (sample)" if row.sampled else "")
        now, was = _density(row.after, row.zeros_after), _density(row.before, row.zeros_before)
        drawn = histogram(row.low, row.high, now, was, said)
        shown.append(
            f'<figure><span class="name">{text(row.name)}</span>{drawn}'
            f"<figcaption>{text(said)}</figcaption></figure>"
        )
    both = any(row.before and row.after for row in rows)
    note = "Values that are not zero; what is farther out stands in the outermost bins."
    if both:
        note += f" Outline: {sides[0]}; filled: {sides[1]}."
    return section("How the weights are spread", f'<div class="grid">{"".join(shown)}</div>', note=note)


def _density(counts: Sequence[int], zeros: float | None) -> list[float]:
    """Counts as shares of all elements, zeros included, so that tensors of two sizes can be laid over."""
    total = sum(counts) / (1 - (zeros or 0.0)) if counts and (zeros or 0.0) < 1 else 0.0
    return [count / total for count in counts] if total else []


def training(trained: Trained | None) -> str:
    """Curves of a training: losses and the metric by epoch, the loss by step, the rate."""
    if trained is None:
        return ""
    epochs, name = trained.epochs, trained.metric_name
    losses = [
        Series("training loss", [(float(row.epoch), row.loss) for row in epochs]),
        Series("watched data", [(float(row.epoch), row.val_loss) for row in epochs]),
    ]
    metric = [Series(name, [(float(row.epoch), row.metric) for row in epochs])]
    rates = [Series("rate", [(float(row.epoch), row.lr) for row in epochs])]
    per = max(1, trained.steps) / max(1, len(trained.losses))
    steps = [Series("training loss", [(per * (n + 0.5), each) for n, each in enumerate(trained.losses)])]
    drawn = [("Loss by step", chart(steps, "step", "loss", x_text=short) if trained.losses else "")]
    if len(epochs) > 1:
        drawn.append(("Loss by epoch", chart(losses, "epoch", "loss", whole=True)))
        drawn.append((f"{name.capitalize()} by epoch", chart(metric, "epoch", name, whole=True)))
        drawn.append(("Learning rate", chart(rates, "epoch", "rate", whole=True)))
    charts = [section(title, each, level=3) for title, each in drawn]
    said = [
        (name, f"{trained.before:.4f}", f"{trained.after:.4f}"),
        ("loss", f"{trained.loss[0]:.4f}", f"{trained.loss[1]:.4f}"),
        (f"{name} on training rows", "", f"{trained.train:.4f}"),
    ]
    if trained.dense is not None:
        said.append((f"{name} before pruning, as the input says", f"{trained.dense:.4f}", ""))
    figures = table(("", "before", "after"), [tuple(map(text, row)) for row in said], "lrr")
    count = f"{numbers.count(trained.reported_samples)} {trained.reported_on}"
    steps_said = f"{numbers.count(trained.steps)} steps, {numbers.count(trained.samples)} samples"
    best = "" if trained.best_epoch is None else f" Best epoch: {trained.best_epoch}; kept: {trained.kept}."
    ended = f" Stopped early: {trained.stopped}." if trained.stopped else ""
    grid = f'<div class="pair">{"".join(charts)}</div>'
    note = f"Measured on {count}. {steps_said}.{best}{ended}"
    return section("Training", figures, grid, _gradients(trained), note=note)


def _gradients(trained: Trained) -> str:
    top = max((row.rms for row in trained.gradients), default=0.0) or 1.0
    rows = [
        (text(row.name), numbers.number(row.rms), bar(row.rms / top), text(row.verdict))
        for row in trained.gradients
    ]
    return folded("gradients of the weights", table(("weight", "rms", "", ""), rows, "nrbl"))


def _tensors(record: Record) -> str:
    def line(row: TensorRow) -> tuple[str, ...]:
        why = "prunable" if row.prunable else row.reason or "not chosen"
        why = f"tied to {row.tied_to}" if row.tied_to else why
        return (
            text(row.name),
            text(row.dtype),
            text("\u00d7".join(map(str, row.shape)) or "scalar"),
            numbers.percent(numbers.ratio(row.zeros_before, row.numel)),
            numbers.percent(row.sparsity),
            text(why),
        )

    headings = ("tensor", "type", "shape", "zeros before", "zeros after", "")
    return table(headings, [line(row) for row in record.tensors], "nllrrl", hide=(1, 5))


def _ending(record: Record) -> str:
    inputs = [
        (
            text(source.path),
            text(source.format),
            numbers.size(source.bytes),
            f"<code>{text(source.blake3[:16])}</code>",
        )
        for source in record.inputs
    ]
    spent = (
        f"{numbers.seconds(record.seconds)}, {numbers.size(record.peak_bytes)} peak memory, {record.device}"
    )
    return section(
        "Made from",
        table(("file", "format", "size", "blake3"), inputs, "nlrl", hide=(3,)),
        note=f"It took {spent}.",
    )
