"""Charts as inline HTML and SVG; colours come from the page, so that they follow light and dark."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nnopt_cli.report import numbers
from nnopt_cli.report.html_page import text

COLOURS = ("one", "two", "three", "four", "five", "six")
_WIDTH, _HEIGHT = 480, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 24, 26, 38


@dataclass(frozen=True)
class Series:
    """One line or cloud of a chart: its name and its points; a y that is None leaves a gap."""

    name: str
    points: Sequence[tuple[float, float | None]]
    labels: Sequence[str] = ()  # said beside each point, where there are any
    line: bool = True


def bar(now: float, was: float | None = None) -> str:
    """A bar of the share `now`, over the share `was` in grey; both between 0 and 1."""
    below = f'<i class="was" style="width:{_share(was)}"></i>' if was is not None else ""
    return f'<div class="track">{below}<i style="width:{_share(now)}"></i></div>'


def heated(share: float, said: str) -> str:
    """A table's cell, the darker the larger `share` (0 to 1) is; `said` is HTML."""
    return f'<td class="heat" style="background:rgba(var(--heat),{0.6 * share:.3f})">{said}</td>'


def short(value: float) -> str:
    """`73000` as `73k`, for an axis."""
    for factor, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            return f"{value / factor:.3g}{unit}"
    return f"{value:.3g}"


def _share(value: float) -> str:
    return f"{100 * min(1.0, max(0.0, value if math.isfinite(value) else 0.0)):.2f}%"


def chart(
    series: Sequence[Series],
    x_title: str,
    y_title: str,
    *,
    x_text: Callable[[float], str] = lambda value: numbers.number(value),
    y_text: Callable[[float], str] = lambda value: numbers.number(value),
    from_zero: bool = False,
    whole: bool = False,
) -> str:
    """Lines or points over two axes, with a legend where there are several. Empty without two figures.

    With `whole` there are only whole numbers on the x axis.
    """
    shown = [(n, each) for n, each in enumerate(series) if any(_fine(x, y) for x, y in each.points)]
    xs = [x for _, each in shown for x, y in each.points if _fine(x, y)]
    ys = [y for _, each in shown for x, y in each.points if y is not None and _fine(x, y)]
    if not xs:
        return ""
    x_axis, y_axis = _Axis(min(xs), max(xs), False, whole), _Axis(min(ys), max(ys), from_zero)
    parts = [_grid(x_axis, y_axis, x_text, y_text, x_title, y_title)]
    for n, each in shown:
        parts.append(_marks(each, COLOURS[n % len(COLOURS)], x_axis, y_axis, x_text, y_text))
    title = f"{y_title} against {x_title}"
    legend = "".join(
        f'<li style="--swatch:var(--{COLOURS[n % len(COLOURS)]})">{text(each.name)}</li>' for n, each in shown
    )
    listed = f'<ul class="legend">{legend}</ul>' if len(shown) > 1 else ""
    return (
        f'<figure>{listed}<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{text(title)}">'
        f"{''.join(parts)}</svg></figure>"
    )


class _Axis:
    """A range with round ticks."""

    def __init__(self, low: float, high: float, from_zero: bool, whole: bool = False) -> None:
        low = min(low, 0.0) if from_zero else low
        if high <= low:
            pad = abs(low) * 0.05 or 0.5
            low, high = low - pad, high + pad
        rough = (high - low) / 4
        power = 10.0 ** math.floor(math.log10(rough)) if rough > 0 else 1.0
        step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
        self.step = float(max(1, math.ceil(step))) if whole else step
        self.low = math.floor(low / self.step + 1e-9) * self.step
        self.high = math.ceil(high / self.step - 1e-9) * self.step

    def ticks(self) -> list[float]:
        count = min(12, max(1, round((self.high - self.low) / self.step)))
        return [self.low + n * self.step for n in range(count + 1)]

    def at(self, value: float) -> float:
        return (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5


def _fine(x: float, y: float | None) -> bool:
    return y is not None and math.isfinite(x) and math.isfinite(y)


def _x(axis: _Axis, value: float) -> float:
    return _LEFT + axis.at(value) * (_WIDTH - _LEFT - _RIGHT)


def _y(axis: _Axis, value: float) -> float:
    return _HEIGHT - _BOTTOM - axis.at(value) * (_HEIGHT - _TOP - _BOTTOM)


def _grid(
    x_axis: _Axis,
    y_axis: _Axis,
    x_text: Callable[[float], str],
    y_text: Callable[[float], str],
    x_title: str,
    y_title: str,
) -> str:
    floor, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    out = []
    for tick in y_axis.ticks():
        y = _y(y_axis, tick)
        out.append(f'<path class="axis" d="M{_LEFT} {y:.1f}H{right}"/>')
        out.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{text(y_text(tick))}</text>')
    for tick in x_axis.ticks():
        x = _x(x_axis, tick)
        out.append(f'<path class="axis" d="M{x:.1f} {floor}v4"/>')
        out.append(f'<text x="{x:.1f}" y="{floor + 16}" text-anchor="middle">{text(x_text(tick))}</text>')
    middle = (_LEFT + right) / 2
    out.append(f'<text x="{middle:.0f}" y="{_HEIGHT - 4}" text-anchor="middle">{text(x_title)}</text>')
    out.append(f'<text x="4" y="12">{text(y_title)}</text>')
    return "".join(out)


def _marks(
    series: Series,
    colour: str,
    x_axis: _Axis,
    y_axis: _Axis,
    x_text: Callable[[float], str],
    y_text: Callable[[float], str],
) -> str:
    path, marks, pen = [], [], "M"
    few = len(series.points) <= 60
    for n, (x, y) in enumerate(series.points):
        if y is None or not _fine(x, y):
            pen = "M"
            continue
        px, py = _x(x_axis, x), _y(y_axis, y)
        path.append(f"{pen}{px:.1f} {py:.1f}")
        pen = "L"
        label = series.labels[n] if n < len(series.labels) else ""
        if few or not series.line:
            said = ": ".join(filter(None, (series.name, label, f"{x_text(x)}, {y_text(y)}")))
            marks.append(
                f'<circle cx="{px:.1f}" cy="{py:.1f}" r="{3 if series.line else 5}" fill="var(--{colour})">'
                f"<title>{text(said)}</title></circle>"
            )
        if label and len(series.points) <= 24:
            left = px > _WIDTH * 0.7
            place, side = (px - 4, "end") if left else (px + 4, "start")
            at = f'x="{place:.1f}" y="{py - 7:.1f}" text-anchor="{side}"'
            marks.append(f"<text {at}>{text(label)}</text>")
    drawn = (
        f'<path d="{"".join(path)}" fill="none" stroke="var(--{colour})" stroke-width="2"/>'
        if series.line
        else ""
    )
    return drawn + "".join(marks)


def histogram(low: float, high: float, now: Sequence[float], was: Sequence[float], zeros: str) -> str:
    """Shares in equal bins from `low` to `high`: `now` filled, `was` as an outline, on one scale.

    Args:
        low: left edge of the first bin.
        high: right edge of the last one.
        now: the share of each bin; empty for none.
        was: shares to hold them against; empty for none.
        zeros: what is said of zeros, which are in no bin.
    """
    top = max([*now, *was], default=1.0) or 1.0
    width, height = 220, 70

    def outline(shares: Sequence[float]) -> str:
        step = width / len(shares)
        points = [f"M0 {height}"]
        for n, share in enumerate(shares):
            y = height - height * share / top
            points.append(f"L{n * step:.1f} {y:.1f}H{(n + 1) * step:.1f}")
        return f"{''.join(points)}L{width} {height}Z"

    drawn = f'<path class="now" d="{outline(now)}"/>' if now else ""
    drawn += f'<path class="was" d="{outline(was)}"/>' if was else ""
    ends = (
        f'<text x="0" y="{height + 13}">{text(numbers.number(low))}</text>'
        f'<text x="{width / 2}" y="{height + 13}" text-anchor="middle">0</text>'
        f'<text x="{width}" y="{height + 13}" text-anchor="end">{text(numbers.number(high))}</text>'
    )
    label = text(f"histogram of weights. {zeros}")
    return (
        f'<svg viewBox="0 0 {width} {height + 16}" role="img" aria-label="{label}">'
        f'{drawn}<path class="axis" d="M0 {height}H{width}"/>{ends}</svg>'
    )
