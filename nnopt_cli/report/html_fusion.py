"""The page of an ensemble."""

from __future__ import annotations

from pathlib import PurePath

from nnopt_cli.report import numbers
from nnopt_cli.report.fusion import Fused
from nnopt_cli.report.html_measures import evaluation
from nnopt_cli.report.html_page import Sheet, notes, section, table, text


def fusion(record: Fused) -> Sheet:
    """Why and how the members were fused, and how good members and result are."""
    members = [source for source in record.inputs if not source.base]
    names = " + ".join(PurePath(source.path).name or source.path for source in members)
    why = "".join(f"<p>{text(sentence)}</p>" for sentence in record.evidence)
    layers = sorted(record.likeness, key=lambda row: row.cosine)
    cosines = [(text(row.layer), f"{row.cosine:+.4f}") for row in layers]
    models = [
        (
            text(source.path) + (" (base)" if source.base else ""),
            numbers.count(source.parameters),
            numbers.size(source.bytes),
        )
        for source in record.inputs
    ]
    models.append(
        (text(record.output or "fused"), numbers.count(record.parameters), numbers.size(record.bytes))
    )
    parts = [
        section("Choice", why),
        section("Models", table(("model", "parameters", "bytes"), models, "nrr")),
        *(evaluation(record.evaluated).parts if record.evaluated else ()),
        section(
            "Likeness",
            table(("layer", "cosine"), cosines, "nr"),
            note="Cosine between the members' weights, the least of all pairs.",
        ),
        notes(record.notes),
    ]
    return Sheet(record.command, names, [f"method {record.method}", *record.settings], parts)
