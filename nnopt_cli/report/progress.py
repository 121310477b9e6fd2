"""A progress bar over samples, drawn only on a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nnopt_cli.run import Run, Ticker


@contextmanager
def counted(run: Run, label: str, total: int | None) -> Iterator[Ticker]:
    """A bar over `total` samples, or a count where that is not known; it goes away at the end."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    hidden = run.verbose < 0 or not run.console.is_terminal
    with Progress(*columns, console=run.console, transient=True, disable=hidden) as bar:
        task = bar.add_task(label, total=total)
        yield lambda done: bar.advance(task, done)
