"""Ctrl-C ends training after the step, once; a second one ends it at once."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from nnopt_cli import Run


class Interruption:
    """Whether somebody asked to stop, while the block lasts.

    Attributes:
        asked: whether SIGINT or SIGTERM came.
    """

    def __init__(self, run: Run) -> None:
        self.asked = False
        self._run = run
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._take)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _take(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        if self._run.verbose >= 0:
            self._run.console.print("Stopping after this step; once more stops at once, without saving.")
