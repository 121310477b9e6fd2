"""How fast models are, side by side: as data, and on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnopt_cli.report import numbers
from nnopt_cli.report.page import Page
from nnopt_cli.report.record import Row
from nnopt_cli.report.table import Column

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

WORDS = {"eager": "PyTorch", "compiled": "torch.compile", "onnx": "ONNX Runtime", "sparse": "PyTorch, 2:4"}


class Timing(Row):
    """One model in one backend."""

    model: str
    backend: str
    median: float  # seconds of one forward pass
    low: float  # its lower and upper quartiles
    high: float
    runs: int
    batch: int
    throughput: float  # samples per second at the median
    peak_bytes: int | None  # weights and results; None where that cannot be measured
    ratio: float  # how many times faster than the first model in this backend


class Skipped(Row):
    """A model that a backend does not run, and why."""

    model: str
    backend: str
    why: str


class Bench(Row):
    """What was measured."""

    device: str
    threads: int
    dtype: str | None
    timings: list[Timing]
    skipped: list[Skipped]
    notes: list[str]
    seconds: float  # wall time of the whole command
    version: str


def render(record: Bench, console: Console) -> None:
    """Show `record` on `console`."""
    page = Page(console)
    batches = {timing.batch for timing in record.timings}
    conditions = (
        f"batch {', '.join(map(str, sorted(batches)))}",
        record.device,
        numbers.plural(record.threads, "thread") if record.device == "cpu" else "",
        record.dtype or "",
    )
    page.line(page.text("bench", "bold"), " ", page.text(page.joined(conditions), "dim"))
    page.gap()
    columns = (
        Column("model", align="left", flexible=True),
        Column("in", align="left"),
        Column("latency"),
        Column("middle half", style="dim", drop=2),
        Column("samples/s", drop=1),
        Column("memory", drop=3),
        Column("against first"),
    )
    page.table(columns, [_row(page, timing) for timing in record.timings])
    notes = [f"{s.model} in {WORDS[s.backend]}: {s.why}." for s in record.skipped] + record.notes
    page.notes(notes)


def _row(page: Page, timing: Timing) -> list[str | Text]:
    spread = f"{numbers.duration(timing.low)} to {numbers.duration(timing.high)}"
    rate = numbers.number(timing.throughput) if timing.throughput < 1000 else f"{timing.throughput:,.0f}"
    size = "" if timing.peak_bytes is None else numbers.size(timing.peak_bytes)
    latency = page.text(numbers.duration(timing.median), "bold")
    return [timing.model, WORDS[timing.backend], latency, spread, rate, size, f"{timing.ratio:.2f}x"]
