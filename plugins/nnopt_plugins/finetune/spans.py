"""Lengths as one writes them: of a warm-up in steps, epochs or a share; of an interval in steps or time."""

from __future__ import annotations

import re
from dataclasses import dataclass

from nnopt_cli import UsageError

WARMUP = r"^(\d{1,9}|\d{1,9}(\.\d{1,9})?[%e])$"
INTERVAL = r"^(\d{1,9}|\d{1,9}(\.\d{1,9})?[smh])$"
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def warmup_steps(text: str, total: int, per_epoch: int) -> int:
    """`500` steps, `2e` epochs or `5%` of all steps, as steps.

    Raises UsageError where that is all of them, or more: the full rate would never be reached.
    """
    if text.endswith("%"):
        steps = round(float(text[:-1]) / 100 * total)
    elif text.endswith("e"):
        steps = round(float(text[:-1]) * per_epoch)
    else:
        steps = int(text)
    if steps >= total:
        raise UsageError(
            f"--warmup {text}: these are {steps:,} steps, and the whole training has {total:,}",
            "Give a shorter one, such as 5%, or train for more --epochs.",
        )
    return steps


@dataclass
class Interval:
    """When a checkpoint is due.

    Attributes:
        steps: every so many optimizer steps; 0 for never by steps.
        seconds: after so much time; 0 for never by time.
    """

    steps: int = 0
    seconds: float = 0.0
    last: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Interval:
        """`500` steps, `30s`, `10m`, `2h`; 0 for never."""
        found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
        assert found is not None
        if found[2]:
            return cls(seconds=float(found[1]) * _SECONDS[found[2]])
        return cls(steps=int(found[1]))

    def start(self, now: float) -> None:
        """Begin to count time."""
        self.last = now

    def due(self, step: int, now: float) -> bool:
        """Whether a checkpoint is due after `step` steps, at `now` seconds of any clock."""
        if self.steps:
            return step % self.steps == 0
        if self.seconds and now - self.last >= self.seconds:
            self.last = now
            return True
        return False
