"""What happened in the course of training, as plain data: it is saved, drawn and recorded."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

_MOST = 2048  # stretches of the loss curve that are remembered
_SHOWN = 120  # of those that go into the record


@dataclass
class History:
    """The course of one training.

    Attributes:
        epochs: a table for each: `epoch`, `steps` so far, `loss`, `lr`, and on the choosing data
            `val_loss` and `metric`.
        stretches: mean losses of equal stretches of steps; the last may be shorter.
        length: steps in a stretch; it doubles when there are too many.
        partial: sum and number of the losses of a stretch that is not over.
        total: sum of the losses of this epoch, each times its samples.
        samples: of this epoch.
        seen: samples of the whole training.
    """

    epochs: list[dict[str, Any]] = field(default_factory=list)
    stretches: list[float] = field(default_factory=list)
    length: int = 1
    partial: list[float] = field(default_factory=lambda: [0.0, 0])
    total: float = 0.0
    samples: int = 0
    seen: int = 0

    def add(self, loss: float, samples: int) -> None:
        """One step's loss, a mean over `samples`."""
        self.total += loss * samples
        self.samples += samples
        self.seen += samples
        self.partial[0] += loss
        self.partial[1] += 1
        if self.partial[1] == self.length:
            self.stretches.append(self.partial[0] / self.length)
            self.partial = [0.0, 0]
        if len(self.stretches) == _MOST:
            pairs = zip(self.stretches[::2], self.stretches[1::2], strict=True)
            self.stretches = [(one + other) / 2 for one, other in pairs]
            self.length *= 2

    @property
    def loss(self) -> float:
        """Mean loss of this epoch so far."""
        return self.total / max(1, self.samples)

    def end_epoch(self, row: dict[str, Any]) -> None:
        """Note an epoch, and begin the next."""
        self.epochs.append({**row, "loss": self.loss})
        self.total, self.samples = 0.0, 0

    def curve(self) -> list[float]:
        """The losses in at most 120 stretches of equal length, the last one perhaps shorter."""
        values = list(self.stretches)
        if self.partial[1]:
            values.append(self.partial[0] / self.partial[1])
        size = -(-len(values) // _SHOWN)
        parts = [values[start : start + size] for start in range(0, len(values), max(1, size))]
        return [sum(part) / len(part) for part in parts]

    def state(self) -> dict[str, Any]:
        """As plain data; `History(**state)` is the same again."""
        return asdict(self)
