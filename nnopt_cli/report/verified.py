"""Whether two files compute the same: as data, and on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnopt_cli.report.exported import Compared, proof
from nnopt_cli.report.page import Page
from nnopt_cli.report.record import Row

if TYPE_CHECKING:
    from rich.console import Console


class Verified(Row):
    """One comparison of two files."""

    a: str
    b: str
    same: bool
    parity: Compared
    notes: list[str]
    seconds: float
    version: str


def render(record: Verified, console: Console) -> None:
    """Show `record` on `console`."""
    page = Page(console)
    page.line(page.text("verify", "bold"), " ", page.text(f"{record.a} {record.b}", "bold cyan"))
    page.pairs(proof(page, record.parity))
    page.gap()
    if record.same:
        page.line(page.text("The same", "bold green"), ", as far as these inputs tell.")
    else:
        page.line(page.text("Not the same", "bold red"))
        page.prose(f"{record.b}: {record.parity.fault}.")
    for note in record.notes:
        page.prose(note, bullet=True)
