"""What is in a file, and what differs between two, as pages."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import PurePath

from nnopt_cli.report import numbers
from nnopt_cli.report.comparison import Comparison
from nnopt_cli.report.html_charts import bar
from nnopt_cli.report.html_page import Sheet, cards, folded, notes, section, table, text
from nnopt_cli.report.html_pass import histograms
from nnopt_cli.report.inspection import Inspection


def inspection(record: Inspection) -> Sheet:
    """One model file."""
    glance = [
        ("parameters", numbers.count(record.parameters), numbers.plural(record.tensors_in_file, "tensor")),
        ("bytes on disk", numbers.size(record.bytes), record.format),
    ]
    if record.prunable_zeros is not None and record.prunable:
        share = numbers.percent(record.prunable_zeros / record.prunable)
        glance.append(("sparsity of prunable weights", share, f"of {numbers.count(record.prunable)}"))
    if record.nonfinite:
        glance.append(("not finite", numbers.count(record.nonfinite), "NaN or infinite"))
    largest = max((row.elements for row in record.tensors), default=0) or 1
    rows = [
        (
            text(row.name),
            text(row.dtype),
            text("\u00d7".join(map(str, row.shape)) or "scalar"),
            numbers.count(row.elements),
            bar(row.elements / largest),
            "" if row.sparsity is None else numbers.percent(row.sparsity),
            numbers.number(row.l2),
            numbers.number(row.max_abs),
            text(f"tied to {row.tied_to}" if row.tied_to else "yes" if row.prunable else row.reason),
        )
        for row in record.tensors
    ]
    headings = ("tensor", "type", "shape", "elements", "", "zeros", "L2", "max |w|", "prunable")
    parts = [
        cards(glance),
        _provenance(record),
        _cost(record),
        histograms(record.histograms, ("", "")),
        section("Tensors", table(headings, rows, "nllrbrrrl", hide=(1, 2, 6, 7, 8)), note=record.rule),
        notes(record.notes),
    ]
    chips = [f"blake3 {record.blake3[:16]}"] if record.blake3 else []
    return Sheet("inspect", record.path, chips, parts)


def _provenance(record: Inspection) -> str:
    made = record.provenance
    if not made:
        return ""
    steps = "".join(f"<li><code>{text(json.dumps(step))}</code></li>" for step in made.get("steps", []))
    inputs = "".join(f"<li><code>{text(json.dumps(each))}</code></li>" for each in made.get("inputs", []))
    body = f"<ul>{steps}</ul>" + (f"<p>from</p><ul>{inputs}</ul>" if inputs else "")
    return section("How it was made", body, note="As the file says of itself.")


def _cost(record: Inspection) -> str:
    if record.cost is None:
        return ""
    rows = [
        (
            text(layer.layer),
            text(layer.operator),
            numbers.count(layer.parameters),
            numbers.count(layer.macs),
            numbers.percent(numbers.ratio(layer.macs, record.cost.macs)),
            bar(numbers.ratio(layer.macs, record.cost.macs)),
        )
        for layer in record.cost.layers
    ]
    total = (
        f"{numbers.count(record.cost.macs)} multiply-accumulates for one sample; "
        f"activations take {numbers.size(record.cost.activation_bytes)} at most."
    )
    headings = ("layer", "operator", "parameters", "MACs", "share", "")
    return section("Cost of each layer", table(headings, rows, "nlrrrb", hide=(1, 2)), note=total)


def comparison(record: Comparison) -> Sheet:
    """Two model files."""
    sides = [
        (letter, text(side.path), text(side.format), numbers.count(side.parameters), numbers.size(side.bytes))
        for letter, side in (("A", record.a), ("B", record.b))
    ]
    shown = [row for row in record.tensors if row.status != "identical"]
    rows = [
        (
            text(row.name),
            text(row.status.replace("_", " ")),
            numbers.percent(numbers.ratio(row.changed, row.elements)) if row.elements else "",
            bar(numbers.ratio(row.changed, row.elements)) if row.elements else "",
            numbers.number(row.max_abs),
            numbers.number(row.relative),
            numbers.number(row.cosine),
            numbers.count(row.zeros_added),
            numbers.count(row.zeros_revived),
        )
        for row in shown
    ]
    found = Counter(row.status.replace("_", " ") for row in record.tensors)
    headings = ("tensor", "", "changed", "", "max |b-a|", "relative", "cosine", "zeros added", "revived")
    same = [(text(row.name),) for row in record.tensors if row.status == "identical"]
    parts = [
        f"<p><b>{text(record.verdict)}</b></p>",
        table(("", "file", "format", "parameters", "size"), sides, "lnlrr", hide=(2,)),
        cards([(status, numbers.count(count), "tensors") for status, count in found.items()]),
        section("What differs", table(headings, rows, "nlrbrrrrr", hide=(5, 6, 7, 8)), note=record.rule),
        histograms(record.histograms, ("A", "B")),
        section("What does not", folded(numbers.plural(len(same), "tensor"), table(("tensor",), same, "n"))),
        notes(record.notes),
    ]
    names = f"{PurePath(record.a.path).name} and {PurePath(record.b.path).name}"
    return Sheet("compare", names, [], parts)
