"""How good models are, on a terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from nnopt_cli.report import numbers
from nnopt_cli.report.inspection_console import FORMATS
from nnopt_cli.report.page import Page
from nnopt_cli.report.table import Column

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from nnopt_cli.report.evaluation import Evaluated, Score

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_MOST = 10  # confusions that are listed where the whole matrix does not fit
_UPPER = {"nll": "NLL", "ece": "ECE", "f1": "F1", "r2": "R²", "mse": "MSE", "mae": "MAE", "map": "mAP"}


def render(record: Evaluated, console: Console) -> None:
    """Show `record` on `console`."""
    page = Page(console)
    many = len(record.models) > 1
    for letter, score in zip(_letters(record), record.models, strict=True):
        indent = "   " if many else ""
        page.line(page.text(f"{letter}  " if many else "", "bold"), page.text(score.path, "bold cyan"))
        page.line(indent, page.text(_size(page, score), "dim"))
    page.gap()
    page.prose(_said(record), "bold")
    page.prose(page.joined((_task(record), *record.settings)), "dim")
    page.gap()
    heads = _letters(record) if many else [""]
    figures(page, record, heads)
    if many:
        pairs(page, record, heads)
    if any(score.per_class for score in record.models):
        _classes(page, record)
    for score in record.models[:1]:
        if score.matrices and not many:
            _confusion(page, record, score)
    page.notes(record.notes)


def _letters(record: Evaluated) -> list[str]:
    return [LETTERS[i] if i < len(LETTERS) else str(i + 1) for i in range(len(record.models))]


def _size(page: Page, score: Score) -> str:
    kind = FORMATS.get(score.format, score.format)
    return page.joined((kind, f"{numbers.count(score.parameters)} parameters", numbers.size(score.bytes)))


def _said(record: Evaluated) -> str:
    """The metric that decides, in a sentence."""
    values = [score.metrics.get(record.gate) for score in record.models]
    name = label(record.gate)
    on = f"on {numbers.plural(record.samples, 'sample')} of {record.data}"
    if len(values) == 1:
        return f"{name} {number(values[0])}{_spread(record, values[0])} {on}."
    known = [value for value in values if value is not None]
    if not known:
        return f"No model has a finite {name} {on}."
    best = max(known) if record.larger_is_better[record.gate] else min(known)
    letters = [letter for letter, value in zip(_letters(record), values, strict=True) if value == best]
    which = letters[0] if len(letters) == 1 else f"{', '.join(letters[:-1])} and {letters[-1]} alike"
    return f"Best {on}: {which}, {name} {number(best)}{_spread(record, best)}."


def _spread(record: Evaluated, value: float | None) -> str:
    """The standard error of a share of samples."""
    if record.task != "classification" or record.gate != "accuracy" or value is None:
        return ""
    return f" \u00b1 {math.sqrt(max(0.0, value * (1 - value)) / record.samples):.4f}"


def _task(record: Evaluated) -> str:
    noun = {"classification": "class", "multi-label": "label", "regression": "value"}[record.task]
    many = (
        f"{record.classes} {noun}{'es' if noun == 'class' else 's'}" if record.classes != 1 else f"1 {noun}"
    )
    return f"{record.task}, {many}"


def number(value: float | None) -> str:
    """A figure with four decimals where it is of the order of one, else four digits; a dash for none."""
    if value is None:
        return "-"
    return f"{value:.4f}" if 1e-3 <= abs(value) < 10 or value == 0 else numbers.number(value)


def label(name: str) -> str:
    """A metric's name as one reads it."""
    return _UPPER.get(name, name)


def figures(page: Page, record: Evaluated, heads: Sequence[str]) -> None:
    """All metrics, a column for each model under its head."""
    rows: list[list[str | Text]] = []
    names = list(record.models[0].metrics)
    columns = [[score.metrics[name] for score in record.models] for name in names]
    columns.insert(len(names), [score.loss for score in record.models])
    for name, values in zip([*names, "loss"], columns, strict=True):
        up = record.larger_is_better.get(name, False)
        shown = label(name) if name != "loss" else f"loss ({record.loss})"
        style = "bold" if name == record.gate else ""
        rows.append([page.text(shown, style), *_marked(page, values, up, style)])
    speeds = [f"{numbers.count(round(score.throughput))}/s" for score in record.models]
    rows.append(["throughput", *speeds])
    page.table((Column(align="left"), *(Column(head) for head in heads)), rows)


def _marked(page: Page, values: Sequence[float | None], up: bool, style: str) -> list[Text]:
    """Figures, the best of several in green."""
    known = [value for value in values if value is not None]
    best = (max(known) if up else min(known)) if len(set(known)) > 1 else None
    return [page.text(number(v), f"{style} green".strip() if v == best else style) for v in values]


def pairs(page: Page, record: Evaluated, letters: Sequence[str]) -> None:
    """How far the models are apart, against the first; every pair where there are three."""
    page.heading("Disagreement")
    count = len(record.models)
    every = [(i, j) for i in range(count) for j in range(i + 1, count)]
    for i, j in every if count <= 3 else [(0, j) for j in range(1, count)]:
        far = record.disagreement[i][j]
        a, b = letters[i], letters[j]
        if record.task == "regression":
            page.prose(f"{a} and {b} differ by {number(far)} (root of the mean square).", bullet=True)
            continue
        what = "samples" if record.task == "classification" else "labels"
        sentence = f"{a} and {b} answer differently on {numbers.percent(far)} of the {what}"
        if record.task == "classification":
            more, less = record.wins[j][i], record.wins[i][j]
            sentence += f": {b} is right on {numbers.count(more)} that {a} gets wrong, "
            sentence += f"and wrong on {numbers.count(less)} that {a} gets right"
        page.prose(f"{sentence}.", bullet=True)
    if count > 3:
        page.prose("--json has every pair.", bullet=True)


def _classes(page: Page, record: Evaluated) -> None:
    """One line for each class: of one model all figures, of several the first."""
    first = record.models[0].per_class
    wanted = list(first) if len(record.models) == 1 else [next(n for n in ("recall", *first) if n in first)]
    size = len(next(iter(first.values())))
    heads = [label(name) for name in wanted] if len(record.models) == 1 else _letters(record)
    page.heading("Classes", "" if len(record.models) == 1 else label(wanted[0]))
    columns = [Column("class", align="left", flexible=True, cut="end")]
    columns += [Column("samples" if record.counts else "")]
    columns += [Column(head.removeprefix("class-")) for head in heads]
    rows: list[list[str | Text]] = []
    for index in range(size):
        name = record.names[index] if index < len(record.names) else str(index)
        held = numbers.count(record.counts[index]) if index < len(record.counts) else ""
        figures = [score.per_class[key][index] for key in wanted for score in record.models]
        empty = index < len(record.counts) and not record.counts[index]
        rows.append([name, held, *("-" if empty else number(value) for value in figures)])
    page.table(columns, rows)


def _confusion(page: Page, record: Evaluated, score: Score) -> None:
    """The whole matrix where it fits, else what is confused most often."""
    matrix = next(iter(score.matrices.values()))
    names = [record.names[i] if i < len(record.names) else str(i) for i in range(len(matrix))]
    cells = [[int(value or 0) for value in row] for row in matrix]
    widest = max(len(numbers.count(value)) for row in cells for value in row)
    short = [str(i) for i in range(len(names))]
    if 4 + max(map(len, names)) + len(names) * (2 + max(widest, 2)) + 4 <= min(page.width, 140):
        page.heading("Confusion", "rows: the true class; columns: what is said")
        columns = [Column(align="left", style="dim"), Column(align="left"), *(Column(head) for head in short)]
        rows: list[list[str | Text]] = []
        for i, row in enumerate(cells):
            shown = [
                page.text(numbers.count(v), "bold" if i == j else "dim" if not v else "")
                for j, v in enumerate(row)
            ]
            rows.append([short[i], names[i] if names != short else "", *shown])
        page.table(columns, rows)
        return
    pairs = [(v, i, j) for i, row in enumerate(cells) for j, v in enumerate(row) if i != j and v]
    page.heading("Most confused", "true class, what is said, how often")
    for value, i, j in sorted(pairs, reverse=True)[:_MOST]:
        page.line("  ", names[i], f" {page.glyphs.arrow} ", names[j], "  ", numbers.count(value))
