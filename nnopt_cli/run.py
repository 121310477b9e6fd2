"""`Run`: the explicit state of one invocation, handed down; there are no globals."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.console import Console

    from nnopt_cli.model.naming import Selection
    from nnopt_cli.plugin.registry import Registry


class Ticker(Protocol):
    """Told how many bytes of work are done; thread-safe."""

    def __call__(self, done: int) -> None: ...


def usable_cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _quiet_console() -> Console:
    from rich.console import Console

    return Console(stderr=True, quiet=True)


@dataclass
class Run:
    """State of one invocation: where it computes, what it says, what it noted.

    Attributes:
        device: `cpu`, `cuda`, `cuda:N` or `mps`.
        seed: seed of everything random.
        threads: threads for chunked work on the CPU.
        console: where messages and progress go (stderr); tables of the summary are not a pass's business.
        verbose: 0 normal, 1 `-v`, 2 `-vv`, -1 `-q`.
        notes: sentences for the summary, in order.
        facts: figures for the summary and the record, JSON-able, by name.
        timings: figures of time, which differ from run to run: for the summary, and in no file.
        gate_missed: whether a quality gate was missed and the result is written all the same (exit code 4).
        selection: which tensors the pass worked on, set by a pass that chooses some.
        registry: the components of this invocation; None outside of the command line.
        output: where the result will be written; None where nothing is, or nobody said.
        after: what is to be done once the result is written, such as to remove a checkpoint.
        helpers_bytes: peak resident memory of processes that did a part of the work, summed.
    """

    device: str = "cpu"
    seed: int = 0
    threads: int = field(default_factory=lambda: min(usable_cores(), 8))
    console: Console = field(default_factory=_quiet_console)
    verbose: int = 0
    notes: list[str] = field(default_factory=list)
    facts: dict[str, object] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)
    gate_missed: bool = False
    selection: Selection | None = None
    registry: Registry | None = None
    output: Path | None = None
    after: list[Callable[[], object]] = field(default_factory=list)
    helpers_bytes: int = 0

    def note(self, sentence: str) -> None:
        """Say something in the summary and the record, e.g. what was left out and why."""
        if sentence not in self.notes:
            self.notes.append(sentence)

    def helped(self, peak_bytes: int) -> None:
        """Processes did a part of the work, and took so much memory together at most."""
        self.helpers_bytes = max(self.helpers_bytes, peak_bytes)

    @contextmanager
    def progress(self, label: str, total_bytes: int) -> Iterator[Ticker]:
        """A progress bar over `total_bytes`, drawn only on a terminal and only for longer work."""
        from threading import Lock

        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

        small = total_bytes < 1 << 28  # under a second: a bar would only flicker
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
        hidden = small or self.verbose < 0 or not self.console.is_terminal
        with Progress(*columns, console=self.console, transient=True, disable=hidden) as bar:
            task = bar.add_task(label, total=total_bytes)
            lock = Lock()

            def tick(done: int) -> None:
                with lock:
                    bar.advance(task, done)

            yield (lambda done: None) if hidden else tick
