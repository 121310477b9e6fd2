"""What was measured on data and on the clock, as pages: evaluate, analyze, bench."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath

from nnopt_cli.report import numbers
from nnopt_cli.report.analysis import Analysis
from nnopt_cli.report.bench import WORDS, Bench
from nnopt_cli.report.evaluation import Evaluated, Score
from nnopt_cli.report.evaluation_console import label
from nnopt_cli.report.html_charts import Series, bar, chart, heated, short
from nnopt_cli.report.html_page import Sheet, cards, notes, section, table, text

_MOST_CLASSES = 40  # a confusion matrix with more is no picture any more


def evaluation(record: Evaluated) -> Sheet:
    """Models on the same data."""
    names = _letters(len(record.models))
    titles = {
        n: f"{names[n]}  {score.path}" if len(names) > 1 else score.path
        for n, score in enumerate(record.models)
    }
    gate = record.gate
    glance = [
        (
            f"{gate} of {names[n]}" if len(names) > 1 else gate,
            _figure(score.metrics.get(gate)),
            PurePath(score.path).name,
        )
        for n, score in enumerate(record.models[:6])
    ]
    metrics = list(dict.fromkeys(name for score in record.models for name in score.metrics))
    rows = [
        (
            text(titles[n]),
            numbers.count(score.parameters),
            numbers.size(score.bytes),
            _figure(score.loss),
            *(_figure(score.metrics.get(name)) for name in metrics),
            f"{score.throughput:,.0f}",
        )
        for n, score in enumerate(record.models)
    ]
    headings = ("model", "parameters", "bytes", "loss", *map(label, metrics), "samples/s")
    points = [
        Series(names[n], [(float(score.parameters), score.metrics.get(gate))], [names[n]], line=False)
        for n, score in enumerate(record.models)
    ]
    sizes = {score.parameters for score in record.models}
    cost = chart(points, "parameters", gate, x_text=short) if len(sizes) > 1 else ""
    parts = [
        cards(glance),
        section("Figures", table(headings, rows, "n" + "r" * (len(headings) - 1), hide=(1, 2))),
        section(f"{gate.capitalize()} against size", cost),
        disagreement(record, names),
        *(_classes(record, n, score, names) for n, score in enumerate(record.models)),
        _unreadable(record),
        notes(record.notes),
    ]
    chips = [
        f"{numbers.count(record.samples)} samples",
        record.task,
        f"loss {record.loss}",
        *record.settings,
        record.device,
    ]
    return Sheet("evaluate", record.data, chips, parts)


def disagreement(record: Evaluated, names: Sequence[str]) -> str:
    """How far apart every two models are, and what one of them gets right and the other wrong."""
    if len(names) < 2:
        return ""
    most = max(max(row) for row in record.disagreement) or 1.0
    values = record.task == "regression"
    apart = [
        [
            text(name),
            *(heated(0.8 * far / most, _figure(far) if values else numbers.percent(far)) for far in row),
        ]
        for name, row in zip(names, record.disagreement, strict=True)
    ]
    what = "labels" if record.task == "multi-label" else "samples"
    said = f"Share of the {what} that the row's model and the column's answer differently."
    rooted = "Root of the mean square of the difference between the row's model and the column's."
    tables = [table(("", *names), apart, "l" + "r" * len(names))]
    if record.task == "classification":
        wins = [list(map(float, row)) for row in record.wins]
        shown = section(
            "Right where another is wrong",
            _matrix(wins, names, names),
            note="Samples that the row's model gets right and the column's wrong.",
            level=3,
        )
        tables.append(shown)
    return section("Disagreement", *tables, note=rooted if values else said)


def _classes(record: Evaluated, n: int, score: Score, letters: Sequence[str]) -> str:
    if not score.per_class and not score.matrices:
        return ""
    count = max((len(values) for values in score.per_class.values()), default=record.classes)
    names = [record.names[c] if c < len(record.names) else str(c) for c in range(count)]
    columns = list(score.per_class)
    rows = [
        (
            text(names[c]),
            numbers.count(record.counts[c]) if c < len(record.counts) else "",
            *(_figure(score.per_class[column][c]) for column in columns),
            bar(score.per_class[columns[0]][c] or 0.0) if columns else "",
        )
        for c in range(count)
    ]
    tables = table(
        ("class", "samples", *columns, columns[0] if columns else ""), rows, "lr" + "r" * len(columns) + "b"
    )
    matrices = [
        section(
            f"{name.capitalize()}", _matrix(matrix, names, names), note="Rows are the true classes.", level=3
        )
        for name, matrix in score.matrices.items()
        if len(matrix) <= _MOST_CLASSES
    ]
    title = f"Classes, model {letters[n]}" if len(letters) > 1 else "Classes"
    return section(title, tables, *matrices)


def _matrix(values: Sequence[Sequence[float | None]], rows: Sequence[str], columns: Sequence[str]) -> str:
    """A table whose cells are shaded by their share of the row's sum."""
    lines = []
    whole = all(value is None or float(value).is_integer() for row in values for value in row)
    for name, row in zip(rows, values, strict=False):
        total = sum(abs(value or 0.0) for value in row) if whole else 1.0
        cells = [text(name)]
        for value in row:
            share = min(1.0, abs(value or 0.0) / total) if total else 0.0
            said = numbers.count(int(value)) if whole and value is not None else _figure(value)
            cells.append(heated(share, said))
        lines.append(cells)
    return table(("", *columns), lines, "l" + "r" * len(columns))


def _unreadable(record: Evaluated) -> str:
    rows = [(text(missed.where), text(missed.why)) for missed in record.unreadable]
    return section("Could not be read", table(("image", "why"), rows, "nl"))


def analysis(record: Analysis) -> Sheet:
    """How much a metric depends on each group."""
    most = max((group.loses for group in record.groups), default=0.0)
    rows = [
        (
            text(group.layer),
            numbers.count(group.units),
            *(_shaded(record, value) for value in group.metric),
            bar(max(0.0, group.loses) / most if most > 0 else 0.0),
        )
        for group in record.groups
    ]
    shares = [f"{share:.0%} gone" for share in record.ratios]
    body = table(
        ("rows of", "units", *shares, "loses at most"), rows, "nr" + "r" * len(shares) + "b", hide=(1,)
    )
    worst = sorted(record.groups, key=lambda group: -group.loses)[:6]
    lines = [
        Series(group.layer, [(0.0, record.dense), *zip(record.ratios, group.metric, strict=True)])
        for group in worst
    ]
    drawn = chart(lines, "share of the group removed", record.metric, x_text=lambda value: f"{value:.0%}")
    parts = [
        cards(
            [
                (
                    f"{record.metric}, as it is",
                    _figure(record.dense),
                    f"on {numbers.plural(record.samples, 'sample')}",
                )
            ]
        ),
        section(
            f"{record.metric.capitalize()} when one group alone is pruned",
            body,
            note="In the order of the graph.",
        ),
        section("The groups that it depends on most", drawn),
        notes(record.notes),
    ]
    return Sheet("analyze", record.model, [f"criterion {record.criterion}", f"metric {record.metric}"], parts)


def _shaded(record: Analysis, value: float) -> str:
    """The metric in a cell that is the darker the more was lost, of the most that any group loses."""
    sign = 1 if record.larger_is_better else -1
    most = max((group.loses for group in record.groups), default=0.0)
    lost = max(0.0, sign * (record.dense - value)) / most if most > 0 else 0.0
    return heated(min(1.0, lost), _figure(value))


def bench(record: Bench) -> Sheet:
    """How fast models are."""
    slowest = max((timing.median for timing in record.timings), default=0.0) or 1.0
    rows = [
        (
            text(timing.model),
            text(WORDS.get(timing.backend, timing.backend)),
            text(numbers.duration(timing.median)),
            text(f"{numbers.duration(timing.low)} to {numbers.duration(timing.high)}"),
            f"{timing.throughput:,.0f}" if timing.throughput >= 1000 else numbers.number(timing.throughput),
            "" if timing.peak_bytes is None else numbers.size(timing.peak_bytes),
            f"{timing.ratio:.2f}x",
            bar(timing.median / slowest),
        )
        for timing in record.timings
    ]
    headings = ("model", "in", "latency", "middle half", "samples/s", "memory", "against first", "")
    left_out = [
        f"{each.model} in {WORDS.get(each.backend, each.backend)}: {each.why}." for each in record.skipped
    ]
    chips = [record.device, numbers.plural(record.threads, "thread"), record.dtype or ""]
    parts = [
        section(
            "Latency",
            table(headings, rows, "nlrrrrrb", hide=(3, 4, 5)),
            note="Bars: time of one forward pass.",
        ),
        notes([*left_out, *record.notes]),
    ]
    models = dict.fromkeys(PurePath(timing.model).name for timing in record.timings)
    return Sheet("bench", ", ".join(models), [chip for chip in chips if chip], parts)


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _letters(count: int) -> list[str]:
    return [chr(ord("A") + n) if n < 26 else str(n + 1) for n in range(count)]
