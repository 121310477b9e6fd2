"""What `nnopt convert` did: as data, and on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnopt_cli.report import numbers
from nnopt_cli.report.page import Page
from nnopt_cli.report.record import Row

if TYPE_CHECKING:
    from rich.console import Console


class Agreement(Row):
    """How the written graph was held against the module that it was exported from."""

    difference: float  # largest difference over largest output
    tolerance: float
    batches: list[int]


class Conversion(Row):
    """One conversion."""

    input: str
    input_format: str
    input_bytes: int  # on disk, all files
    output: str | None  # None after --dry-run
    output_bytes: int
    tensors: int  # tied ones counted once
    parameters: int
    blake3: str  # of the weights, the same in both
    fed: str | None  # what the graph is fed, as --input writes it; None without a graph
    agreement: Agreement | None  # None where no module was at hand to compare with
    notes: list[str]
    seconds: float
    version: str


def render(record: Conversion, console: Console, verbose: int = 0) -> None:
    """Show `record` on `console`; `verbose` -1 shows only the path written."""
    page = Page(console)
    if verbose < 0:
        if record.output is not None:
            page.line(record.output)
        return
    page.line(page.text("convert", "bold"), " ", page.text(record.input, "bold cyan"))
    weights = f"{numbers.plural(record.tensors, 'tensor')}, {numbers.count(record.parameters)} parameters"
    rows = [("weights", weights)]
    if record.fed is not None:
        rows.append(("fed", record.fed))
    if record.agreement is not None:
        off = numbers.number(record.agreement.difference)
        batches = " and ".join(map(str, record.agreement.batches))
        rows.append(("checked", f"as the module computes, at batch {batches}; largest difference {off}"))
    before, after = numbers.size(record.input_bytes), numbers.size(record.output_bytes)
    rows.append(("size", f"{before} before, {after} after"))
    page.pairs(rows)
    page.notes(record.notes)
    page.gap()
    page.written(record.output)
