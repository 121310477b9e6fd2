"""What is in a model file, on a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nnopt_cli.report import numbers
from nnopt_cli.report.cost import render_costs
from nnopt_cli.report.page import Page
from nnopt_cli.report.settings import described
from nnopt_cli.report.table import Column

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from nnopt_cli.report.inspection import Inspection, TensorFigures

FORMATS = {
    "safetensors": "safetensors",
    "torch": "PyTorch zip archive",
    "torch-legacy": "PyTorch pickle from before the zip format",
    "torchscript": "TorchScript archive",
    "pickle": "plain pickle",
    "pt2": "exported program",
}
ALARM = "bold red"


def render(record: Inspection, console: Console) -> None:
    """Show `record` on `console`."""
    page = Page(console)
    page.line(page.text(record.path, "bold cyan"))
    page.pairs(_file(page, record))
    page.gap()
    page.pairs(_totals(page, record))
    if record.provenance is not None:
        _provenance(page, record.provenance)
    shown = len(record.tensors)
    of = f" of {numbers.count(record.tensors_in_file)}" if shown < record.tensors_in_file else ""
    types = {row.dtype for row in record.tensors}
    unlike = len(types) > 1
    page.heading(
        "Tensors", f"{numbers.count(shown)}{of}" + (f", all {types.pop()}" if len(types) == 1 else "")
    )
    page.table(_columns(record.tensors, unlike), [_row(page, row, unlike) for row in record.tensors])
    page.prose(record.rule, "dim")
    if record.cost is not None:
        render_costs(page, record.cost)
    page.notes(record.notes)
    _alarm(page, record)


def _file(page: Page, record: Inspection) -> list[tuple[str, str | Text]]:
    inside = page.joined(
        (
            f"weights under {'.'.join(record.key)}" if record.key else "",
            f"names begin with {record.prefix}" if record.prefix else "",
            numbers.plural(record.shards, "shard") if record.shards else "",
            "tensors taken out of pickled objects, without running them" if record.rebuilt else "",
        )
    )
    rows: list[tuple[str, str | Text]] = [
        ("format", page.joined((FORMATS.get(record.format, record.format), numbers.size(record.bytes)))),
        ("inside", inside),
        ("metadata", ", ".join(f"{key}={value}" for key, value in record.metadata.items())),
        ("blake3", record.blake3 or ""),
    ]
    return [row for row in rows if row[1]]


def _totals(page: Page, record: Inspection) -> list[tuple[str, str | Text]]:
    rows: list[tuple[str, str | Text]] = [("parameters", numbers.count(record.parameters))]
    if record.nonzeros is not None:
        sparsity = numbers.percent(1 - numbers.ratio(record.nonzeros, record.parameters or 1))
        sparsity = sparsity if record.parameters else numbers.percent(0)
        rows.append(("non-zeros", page.joined((numbers.count(record.nonzeros), f"sparsity {sparsity}"))))
    share = ""
    if record.prunable_zeros is not None:
        share = f"sparsity {numbers.percent(numbers.ratio(record.prunable_zeros, record.prunable))}"
    rows.append(("prunable", page.joined((numbers.count(record.prunable), share))))
    if record.nonfinite:
        rows.append(("non-finite", page.text(numbers.count(record.nonfinite), ALARM)))
    return rows


def _provenance(page: Page, made: Mapping[str, Any]) -> None:
    """The file's own record of how it was made: a claim of the file, of which nothing is relied on."""
    page.heading("Made by", f"nnopt {made['version']}")
    sources = [source for source in made["inputs"] if isinstance(source, Mapping)]
    rows = [("from", page.joined((str(s.get("path", "")), str(s.get("blake3", ""))))) for s in sources]
    for number, step in enumerate((s for s in made["steps"] if isinstance(s, Mapping)), 1):
        name = str(step.get("pass", step.get("name", "")))
        rows.append((f"step {number}", page.joined((name, *described(step)))))
    page.pairs(rows)


def _columns(rows: Sequence[TensorFigures], unlike: bool) -> list[Column]:
    """Later columns give way first where space is short; a figure that no tensor has takes none."""
    measured = any(row.zeros is not None for row in rows)
    return [
        Column("tensor", align="left", flexible=True),
        Column("shape", align="left", drop=2),
        Column("dtype" if unlike else "", align="left", drop=3),
        Column("sparsity" if measured else ""),
        Column("N:M" if any(row.patterns for row in rows) else "", align="left"),
        Column("non-finite" if any(row.nonfinite for row in rows) else "", style=ALARM),
        Column("L1" if measured else "", drop=7),
        Column("L2" if measured else "", drop=6),
        Column("max |w|" if measured else "", drop=5),
        Column("prunable", align="left", drop=1),
    ]


def _row(page: Page, row: TensorFigures, unlike: bool) -> list[str | Text]:
    sparsity = "" if row.sparsity is None else numbers.percent(row.sparsity)
    fate = "tied" if row.tied_to else row.reason.partition(",")[0]
    name = f"{row.name} = {row.tied_to}" if row.tied_to else row.name
    return [
        page.text(name, ALARM if row.nonfinite else ""),
        page.text(page.shape(row.shape), "dim"),
        page.text(row.dtype if unlike else "", "dim"),
        page.text(sparsity, "" if row.zeros else "dim"),
        page.text(" ".join(row.patterns), "cyan"),
        numbers.count(row.nonfinite) if row.nonfinite else "",
        numbers.number(row.l1),
        numbers.number(row.l2),
        numbers.number(row.max_abs),
        page.text("yes", "green") if row.prunable and not row.tied_to else page.text(fate, "dim"),
    ]


def _alarm(page: Page, record: Inspection) -> None:
    bad = [row for row in record.tensors if row.nonfinite and not row.tied_to]
    if bad:
        page.gap()
        verb = "holds" if len(bad) == 1 else "hold"
        which = numbers.plural(len(bad), "tensor")
        page.prose(f"{which} {verb} NaN or infinite values; norms are of the finite ones.", ALARM)
