"""A training on a terminal: what it gained, and its curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nnopt_cli.report import numbers
from nnopt_cli.report.table import Column

if TYPE_CHECKING:
    from nnopt_cli.report.page import Page
    from nnopt_cli.report.record import Trained

_HEIGHT = 5  # lines of a chart
_STEPS = "▁▂▃▄▅▆▇█"
_LOUDEST = 5  # layers whose gradients are shown


def show_training(page: Page, found: Trained, *, everything: bool) -> None:
    """What was measured before and after, the curves, and gradients out of proportion."""
    page.heading("Training", _measured_on(found))
    page.table(_columns(found), _rows(found))
    page.gap()
    page.pairs(_facts(page, found))
    _charts(page, found)
    if everything:
        _gradients(page, found)


def _measured_on(found: Trained) -> str:
    return f"measured on {numbers.count(found.reported_samples)} {found.reported_on}"


def _columns(found: Trained) -> tuple[Column, ...]:
    dense = (Column("before pruning"),) if found.dense is not None else ()
    return (
        Column(align="left"),
        *dense,
        Column("before"),
        Column("after"),
        Column(align="left", style="dim"),
    )


def _rows(found: Trained) -> list[tuple[Any, ...]]:
    dense = (_figure(found.dense),) if found.dense is not None else ()
    before, after = found.loss
    metric = (_figure(found.before), _figure(found.after), _figure(found.after - found.before, "+"))
    loss = (_figure(before), _figure(after), _figure(after - before, "+"))
    return [(found.metric_name, *dense, *metric), ("loss", *("" for _ in dense), *loss)]


def _figure(value: float | None, sign: str = "") -> str:
    if value is None:
        return ""
    return f"{value:{sign}.4f}" if abs(value) < 1e4 else f"{value:{sign}.4g}"


def _facts(page: Page, found: Trained) -> list[tuple[str, str]]:
    done = f"{numbers.plural(len(found.epochs), 'epoch')}, {numbers.plural(found.steps, 'step')}"
    speed = f"{numbers.count(round(found.samples_per_second))} samples/s" if found.samples_per_second else ""
    out = [("trained", page.joined((done, f"{numbers.count(found.samples)} samples", speed)))]
    gap = f"{found.metric_name} {_figure(found.train)}, a gap of {_figure(found.gap, '+')}"
    out.append(("on training rows", gap))
    if found.best_epoch is not None:
        by = f"by {numbers.count(found.chosen_on)} other rows"
        out.append(("best epoch", f"{found.best_epoch} of {len(found.epochs)}, {by}; kept: {found.kept}"))
    if found.stopped:
        out.append(("stopped early", found.stopped))
    if found.zeros_kept:
        out.append(("kept at zero", f"{numbers.count(found.zeros_kept)} weights"))
    return out


def _charts(page: Page, found: Trained) -> None:
    """The loss over all steps, and the metric over the epochs."""
    width = max(10, min(page.width, 100) - 14)
    chart(page, "loss", found.losses, width)
    metric = [each.metric for each in found.epochs if each.metric is not None]
    if len(metric) > 1:
        chart(page, f"{found.metric_name} after each epoch", metric, width)


def chart(page: Page, title: str, values: Sequence[float], width: int) -> None:
    """Columns from the lowest of `values` to the highest, one for each or for a stretch of them."""
    if len(values) < 2 or not all(map(math.isfinite, values)):
        return
    size = -(-len(values) // width)
    parts = [values[start : start + size] for start in range(0, len(values), size)]
    means = [sum(part) / len(part) for part in parts]
    wide = max(1, min(8, width // len(means)))
    low, high = min(means), max(means)
    if low == high:
        page.heading(title, f"{low:.4g} throughout")
        return
    levels = _HEIGHT * len(_STEPS)
    tall = [1 + round((levels - 1) * (value - low) / (high - low)) for value in means]
    plain = page.glyphs.full == "#"
    page.heading(title)
    for row in reversed(range(_HEIGHT)):
        label = f"{high:.4g}" if row == _HEIGHT - 1 else f"{low:.4g}" if row == 0 else ""
        bars = "".join(_cell(height - row * len(_STEPS), plain) * wide for height in tall)
        page.line(page.text(f"  {label:>9} ", "dim"), page.text(bars.rstrip(), "cyan"))


def _cell(height: int, plain: bool) -> str:
    """One character: filled from below, in eighths where the terminal has them."""
    if height <= 0:
        return " "
    if plain:
        return "#" if height >= len(_STEPS) // 2 else "."
    return _STEPS[min(height, len(_STEPS)) - 1]


def _gradients(page: Page, found: Trained) -> None:
    rows = sorted(found.gradients, key=lambda row: -row.rms)
    if not rows:
        return
    shown = rows if len(rows) <= 2 * _LOUDEST else [*rows[:_LOUDEST], *rows[-_LOUDEST:]]
    page.heading("Gradients", "root mean square by layer, largest first")
    columns = (
        Column("layer", align="left", flexible=True),
        Column("gradient"),
        Column(align="left", style="dim", drop=1),
    )
    page.table(columns, [(row.name, f"{row.rms:.2e}", row.verdict) for row in shown])
