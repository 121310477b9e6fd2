"""The display while training runs; on a terminal only."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from nnopt_cli import Run

_PAUSE = 0.2  # seconds between two changes of the display


class Live:
    """A line that says where training is: epoch, step, loss, metric, rate, samples per second, time left."""

    def __init__(self, run: Run, epochs: int, total: int) -> None:
        self._hidden = run.verbose < 0 or not run.console.is_terminal
        self._run, self._epochs, self._total = run, epochs, total
        self._bar: Any = None
        self._metric, self._last, self._start, self._seen = "", 0.0, 0.0, 0

    def __enter__(self) -> Self:
        if self._hidden:
            return self
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(bar_width=None),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TextColumn("{task.fields[said]}"),
            TimeRemainingColumn(compact=True),
        )
        self._bar = Progress(*columns, console=self._run.console, transient=True, expand=True)
        self._task = self._bar.add_task("", total=self._total, epoch=f"1/{self._epochs}", said="")
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def measured(self, name: str, value: float) -> None:
        """The metric after an epoch."""
        self._metric = f"{name} {value:.4g}"

    def step(self, epoch: int, step: int, loss: float, rate: float, samples: int) -> None:
        """One more step is done; `samples` were in it."""
        if self._bar is None:
            return
        now = time.monotonic()
        self._start = self._start or now
        self._seen += samples
        if now - self._last < _PAUSE:
            return
        self._last = now
        spent = now - self._start
        speed = f"{self._seen / spent:,.0f}/s" if spent > 1 else ""
        said = "  ".join(filter(None, (f"loss {loss:.4g}", self._metric, f"lr {rate:.2g}", speed)))
        self._bar.update(self._task, completed=step + 1, epoch=f"{epoch + 1}/{self._epochs}", said=said)
