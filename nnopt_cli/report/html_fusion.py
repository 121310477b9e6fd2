"""The page of an ensemble."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath

from nnopt_cli.report import numbers
from nnopt_cli.report.evaluation import Evaluated
from nnopt_cli.report.evaluation_console import LETTERS, label, number
from nnopt_cli.report.fusion import Fused
from nnopt_cli.report.html_charts import Series, bar, chart
from nnopt_cli.report.html_measures import disagreement
from nnopt_cli.report.html_page import Sheet, cards, folded, notes, section, table, text

FEW = 12  # layers whose cosines are shown without being asked for


def fusion(record: Fused) -> Sheet:
    """Why and how the members were fused, and how good members and result are."""
    members = [source for source in record.inputs if not source.base]
    heads = [*(LETTERS[n] if n < len(LETTERS) else str(n + 1) for n in range(len(members))), "fused"]
    names = " + ".join(PurePath(source.path).name or source.path for source in members)
    why = "".join(f"<p>{text(sentence)}</p>" for sentence in record.evidence)
    method = record.method if record.method == record.asked else f"{record.asked}: {record.method}"
    written = record.output or "nothing was written" + " (--dry-run)" * record.dry_run
    found = record.evaluated
    parts = [
        f'<p>Result: <span class="name">{text(written)}</span></p>',
        _glance(record, heads),
        section("Why so", why),
        section("Models", _models(record, heads)),
        _measured(found, heads) if found else "",
        disagreement(found, heads) if found else "",
        _likeness(record),
        notes([*record.notes, *(found.notes if found else ())]),
    ]
    return Sheet(record.command, names, [f"method {method}", *record.settings], parts)


def _glance(record: Fused, heads: Sequence[str]) -> str:
    """The result's figures, each beside the best member's."""
    items = [("parameters", numbers.count(record.parameters), f"{numbers.size(record.bytes)} on disk")]
    found = record.evaluated
    for name in found.models[-1].metrics if found else ():
        assert found is not None
        if name not in (found.gate, "nll", "ece"):
            continue
        values = [score.metrics.get(name) for score in found.models]
        best = _best(found, name, values[:-1])
        where = [head for head, value in zip(heads, values[:-1], strict=False) if value == best]
        beside = "" if best is None else f"best member {number(best)} ({where[0]})"
        items.append((f"{label(name)} of the result", number(values[-1]), beside))
    return cards(items)


def _best(found: Evaluated, name: str, values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    if not known:
        return None
    return max(known) if found.larger_is_better.get(name, False) else min(known)


def _models(record: Fused, heads: Sequence[str]) -> str:
    letters = iter(heads)
    rows = [
        (
            "base" if source.base else next(letters),
            text(source.path),
            numbers.count(source.parameters),
            numbers.size(source.bytes),
            f"<code>{text(source.blake3[:16])}</code>",
        )
        for source in record.inputs
    ]
    result = (text(record.output or ""), numbers.count(record.parameters), numbers.size(record.bytes), "")
    rows.append(("fused", *result))
    return table(("", "model", "parameters", "bytes", "blake3 of the weights"), rows, "lnrrl", hide=(4,))


def _measured(found: Evaluated, heads: Sequence[str]) -> str:
    """A row for each metric, a column for each model, the best one strong."""
    rows = []
    every = [*found.models[0].metrics, "loss"]
    for name in every:
        values = [score.loss if name == "loss" else score.metrics.get(name) for score in found.models]
        best = _best(found, name, values)
        alike = len({value for value in values if value is not None}) < 2
        strong = [f"<b>{number(v)}</b>" if v == best and not alike else text(number(v)) for v in values]
        shown = f"loss ({found.loss})" if name == "loss" else label(name)
        better = "more is better" if found.larger_is_better.get(name, False) else "less is better"
        rows.append((text(shown), *strong, better))
    rows.append(("samples/s", *(f"{score.throughput:,.0f}" for score in found.models), ""))
    kinds = "l" + "r" * len(heads) + "l"
    body = table(("", *heads, ""), rows, kinds, hide=(len(heads) + 1,))
    drawn = _drawn(found, heads)
    note = f"On {numbers.plural(found.samples, 'sample')} of {found.data}."
    return section("Measured", body, drawn, note=note)


def _drawn(found: Evaluated, heads: Sequence[str]) -> str:
    """The metric that decides against the negative log likelihood: up and left is better."""
    gate = found.gate
    if gate == "nll" or not all("nll" in score.metrics for score in found.models):
        return ""
    series = [
        Series(head, [(score.metrics["nll"] or 0.0, score.metrics.get(gate))], [head], line=False)
        for head, score in zip(heads, found.models, strict=True)
        if score.metrics["nll"] is not None
    ]
    return section(
        f"{label(gate).capitalize()} and likelihood",
        chart(series, "NLL", label(gate)),
        note="Up: more right answers. Left: a better idea of how sure it may be.",
        level=3,
    )


def _likeness(record: Fused) -> str:
    """The cosine of every layer, in the order of the network."""
    if not record.likeness:
        return ""
    rows = [(text(row.layer), f"{row.cosine:+.4f}", bar(max(0.0, row.cosine))) for row in record.likeness]
    body = table(("layer", "cosine", ""), rows, "nrb")
    drawn = ""
    if len(rows) > FEW:
        points = [(float(n), row.cosine) for n, row in enumerate(record.likeness, 1)]
        drawn = chart([Series("cosine", points)], "layer, from the input on", "cosine", from_zero=True)
        body = folded(f"{len(rows)} layers", body)
    note = "Cosine between the members' weights, the least of all pairs; near one, they share an ancestor."
    return section("Likeness of the layers", drawn, body, note=note)
