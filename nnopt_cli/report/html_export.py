"""The pages of `nnopt export` and `nnopt verify`: whether two compute the same, and what was gained."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import PurePath

from nnopt_cli.report import numbers
from nnopt_cli.report.exported import Compared, Exported, Tried
from nnopt_cli.report.html_charts import bar
from nnopt_cli.report.html_page import Sheet, cards, notes, section, table, text
from nnopt_cli.report.verified import Verified

FAINT = 1e-9  # a difference where bars begin: below what fp32 resolves

Shown = Callable[[float], str]


def export(record: Exported) -> Sheet:
    """What was written, what it gained, and how it was proven to be the model."""
    written = record.output or "nothing was written (--dry-run)"
    others = [name for name in record.files if record.output and not record.output.endswith(name)]
    beside = f", with {', '.join(others)}" if others else ""
    parts = [
        f'<p>Result: <span class="name">{text(written)}</span>{text(beside)}</p>',
        cards([*_gains(record), *_proof(record.parity)]),
        section("Before and after", _sides(record), note=_where(record)),
        proven(record.parity),
        section("What it is fed", _fed(record)),
        section("Where it comes from", _origin(record)),
        notes(record.notes),
        f'<p class="note">It took {text(numbers.seconds(record.seconds))}.</p>',
    ]
    chips = [record.format, *record.settings, f"{numbers.count(record.parameters)} parameters"]
    return Sheet("export", record.input, chips, parts)


def verification(record: Verified) -> Sheet:
    """Whether two files compute the same."""
    said = "The same, as far as these inputs tell." if record.same else "Not the same."
    kind = "good" if record.same else "bad"
    parts = [
        f'<p class="{kind}"><b>{text(said)}</b></p>',
        cards(_proof(record.parity)),
        proven(record.parity),
        notes(record.notes),
        f'<p class="note">It took {text(numbers.seconds(record.seconds))}.</p>',
    ]
    names = f"{PurePath(record.a).name} and {PurePath(record.b).name}"
    return Sheet("verify", names, [f"A {record.a}", f"B {record.b}"], parts)


def _figures(record: Exported) -> list[tuple[str, float, float, Shown]]:
    """What was measured on both sides: label, before, after, how to say one."""
    rows: list[tuple[str, float, float, Shown]] = [
        ("bytes on disk", record.input_bytes, record.bytes, lambda value: numbers.size(int(value)))
    ]
    if record.speed is not None:
        label = f"latency, batch {record.speed.batch}, one thread"
        rows.append((label, record.speed.before, record.speed.after, numbers.duration))
    return rows


def _gains(record: Exported) -> list[tuple[str, str, str]]:
    items = []
    for label, was, now, say in _figures(record):
        times = was / now if now else 0.0
        word = "as fast" if label.startswith("latency") else "smaller"
        said = f", {times:.2f}x {word}" if times > 1 or word == "as fast" else ""
        items.append((label, say(now), f"was {say(was)}{said}"))
    if record.metric is not None:
        m = record.metric
        items.append((m.name, f"{m.after:.4f}", f"was {m.before:.4f}, {m.after - m.before:+.4f}"))
    return items


def _sides(record: Exported) -> str:
    rows = []
    for label, was, now, say in _figures(record):
        top = max(was, now) or 1.0
        rows.append((text(label), text(say(was)), text(say(now)), bar(now / top, was / top)))
    if record.metric is not None:
        m = record.metric
        rows.append((text(m.name), f"{m.before:.4f}", f"{m.after:.4f}", bar(m.after, m.before)))
    return table(("", "before", "after", ""), rows, "lrrb")


def _where(record: Exported) -> str:
    said = "Grey is before, colour is after."
    if record.speed is not None:
        said += f" Latency: PyTorch before, {record.runs_in} after, in turns; the median."
    if record.metric is not None and record.metric.samples:
        said += f" {record.metric.name.capitalize()} on {numbers.plural(record.metric.samples, 'sample')}."
    return said


def _proof(parity: Compared) -> list[tuple[str, str, str]]:
    """The figure that decides, and what it is held to."""
    if parity.measure == "noise":
        none = "no error at all" if parity.fault is None else "unknown"
        items = [("signal-to-noise ratio", none if parity.snr is None else f"{parity.snr:.1f} dB", "")]
        if parity.top1 is not None:
            items.append(("the same class", numbers.percent(parity.top1), "of the samples"))
        return items
    if not parity.trials and parity.fault:
        return []
    off = "infinite" if parity.difference is None else numbers.number(parity.difference)
    allowed = f"{parity.tolerance:g} is allowed" if parity.tolerance else "nothing else is allowed"
    return [("largest difference", off, allowed)]


def proven(parity: Compared) -> str:
    """Every run of both sides: what was fed, at which sizes, and how far apart the outputs were."""
    sizes = list(dict.fromkeys(name for trial in parity.trials for name in trial.sizes))
    first = parity.trials[0].sizes if parity.trials else {}
    rows = [
        (text(trial.inputs), *(_size(trial, name, first) for name in sizes), *_apart(trial, parity))
        for trial in parity.trials
    ]
    held = ("difference", "allowed", "") if parity.tolerance else ("difference",)
    body = table(("fed", *sizes, *held), rows, "l" + "r" * len(sizes) + "rrb"[: len(held)])
    fault = f'<p class="bad">Not proven: {text(parity.fault)}.</p>' if parity.fault else ""
    against = f"Against {parity.against}. The largest difference over the largest output"
    if sizes:
        against += "; every size that may vary is changed alone (strong), the others as in the first run"
    if parity.tolerance:
        against += f". Bars: orders of magnitude, from {FAINT:g} to what is allowed"
    if parity.measure == "noise":
        against += ". Rounding to few bits is held to its noise as a whole, and not to the largest difference"
    said = "" if parity.trials else "<p>Both hold the same bits.</p>" if not parity.fault else ""
    return section("How it was verified", fault, body or said, note=f"{against}." if rows else "")


def _size(trial: Tried, name: str, first: dict[str, int]) -> str:
    """The size of a run, strong where it is not that of the first one."""
    size = trial.sizes.get(name)
    if size is None:
        return ""
    return f"{size}" if size == first.get(name) else f"<b>{size}</b>"


def _apart(trial: Tried, parity: Compared) -> tuple[str, ...]:
    """The difference of a run; beside what is allowed, where that is a difference."""
    far, allowed = trial.difference, parity.tolerance
    said = "infinite" if far is None else numbers.number(far)
    if not allowed:
        return (said,)
    over = far is None or far > allowed
    return f'<b class="bad">{said}</b>' if over else said, f"{allowed:g}", bar(_reach(far, allowed))


def _reach(difference: float | None, tolerance: float) -> float:
    """How far a difference is on the way from `FAINT` to the tolerance, by orders of magnitude."""
    if difference is None or difference > tolerance:
        return 1.0
    if difference <= FAINT:
        return 0.0
    return math.log(difference / FAINT) / math.log(tolerance / FAINT)


def _fed(record: Exported) -> str:
    rows = [
        (text(each.name), text(each.dtype), text(" \u00d7 ".join(map(str, each.shape)) or "scalar"))
        for each in record.inputs
    ]
    return table(("input", "type", "shape; what has a name may vary"), rows, "nll")


def _origin(record: Exported) -> str:
    steps = [
        (str(n), text(step.get("pass", "")), f"<code>{text(_options(step))}</code>")
        for n, step in enumerate(record.steps, 1)
    ]
    digest = f'<p class="note">blake3 of the weights that were read: <code>{text(record.blake3)}</code></p>'
    return table(("", "pass", "with"), steps, "rll") + digest


def _options(step: dict[str, object]) -> str:
    return json.dumps({key: value for key, value in step.items() if key != "pass"}, sort_keys=True)
