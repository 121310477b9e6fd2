"""The training loop: steps, epochs, and what is looked at in between."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nnopt_cli import NnoptError
from nnopt_plugins.finetune.checkpoint import random_state, set_random_state
from nnopt_plugins.finetune.gradients import Gradients
from nnopt_plugins.finetune.history import History
from nnopt_plugins.finetune.judge import Best, Sides, figures
from nnopt_plugins.finetune.step import Stepper, named_tensors

if TYPE_CHECKING:
    from torch import nn

    from nnopt_cli.data import Batch, Data
    from nnopt_plugins.finetune.average import Average
    from nnopt_plugins.finetune.live import Live
    from nnopt_plugins.finetune.rates import Rates

_LAG = 20  # steps whose losses are looked at together on a GPU, which would wait for each otherwise


class DivergedError(NnoptError):
    """The loss is no number any more."""


@dataclass
class Trainer:
    """One training, from its first step or from a checkpoint.

    Attributes:
        stepper: what one optimizer step is.
        data: what is learnt from, task, loss and metric.
        sides: what is measured on.
        rates: the learning rate of every step.
        epochs: how many.
        accumulate: batches for one step.
        average: the moving average of the weights, if there is one.
        patience: epochs without improvement before training stops; None for never.
        keep: whether the `best` epoch or the `last` is the result.
        live: the display.
        pause: called after every optimizer step, with this trainer; may save and raise.
    """

    stepper: Stepper
    data: Data
    sides: Sides
    rates: Rates
    epochs: int
    accumulate: int
    average: Average | None
    patience: int | None
    keep: str
    live: Live
    pause: Callable[[Trainer], None]
    history: History = field(default_factory=History)
    epoch: int = 0  # where the next batch comes from
    batch: int = 0
    step: int = 0
    before: dict[str, Any] = field(default_factory=dict)  # figures before the first step
    stopped: str = ""
    good: dict[str, Any] | None = None  # tensors at the end of the last epoch
    seconds: float = 0.0  # in steps, this process
    timed: int = 0  # samples in that time
    _waiting: list[tuple[int, float, Any, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.best = Best(self.data.gate.larger_is_better)
        self.gradients = Gradients(self.stepper.layers)

    @property
    def module(self) -> nn.Module:
        """The network."""
        return self.stepper.module

    def run(self) -> None:
        """Train to the end; the network then holds the result. Raises DivergedError."""
        if not self.before:
            self.before = self._figures("reported")
            if self.sides.chooses:
                start = self._figures("watched")["metric"]
                self.best.offer(start, 0, self._tensors if self.keep == "best" else None)
        self.module.train()
        while self.epoch < self.epochs and not self.stopped:
            self._epoch()
        self._finish()

    def _epoch(self) -> None:
        for group in self._groups():
            rate = self.rates.at(self.step)
            start = time.perf_counter()
            look = self.gradients if self.gradients.wanted(self.step) else None
            loss, samples = self.stepper.step(group, rate, look)
            self._seen(rate, loss, samples)
            if self.average is not None:
                self.average.update(self.step)
            self.seconds += time.perf_counter() - start
            self.timed += samples
            self.step += 1
            self.pause(self)
        self._flush()
        self._end_epoch()

    def _groups(self) -> Iterator[Sequence[Batch] | Callable[[], Iterator[Batch]]]:
        """The batches of each step of this epoch, from `batch` on; `batch` moves with them."""
        train, epoch = self.data.train.on(self.stepper.device), self.epoch
        if self.stepper.full_batch:
            if not self.batch:
                self.batch = 1
                yield lambda: train.epoch(epoch)
            return
        group: list[Batch] = []
        for batch in train.epoch(epoch, self.batch):
            group.append(batch)
            if len(group) == self.accumulate:
                self.batch += len(group)
                yield group
                group = []
        if group:
            self.batch += len(group)
            yield group

    def _seen(self, rate: float, loss: Any, samples: int) -> None:
        self._waiting.append((self.step, rate, loss, samples))
        if len(self._waiting) >= (1 if self.stepper.device == "cpu" else _LAG):
            self._flush()

    def _flush(self) -> None:
        """Look at the losses that wait. Raises DivergedError for one that is no number."""
        for step, rate, loss, samples in self._waiting:
            value = float(loss)
            if not math.isfinite(value):
                self._waiting.clear()
                raise DivergedError(
                    f"the loss is {value} in step {step + 1:,} (epoch {self.epoch + 1}), at a learning rate "
                    f"of {rate:.3g}"
                )
            self.history.add(value, samples)
            self.live.step(self.epoch, step, value, rate, samples)
        self._waiting.clear()

    def _end_epoch(self) -> None:
        self.epoch, self.batch = self.epoch + 1, 0
        row: dict[str, Any] = {"epoch": self.epoch, "steps": self.step, "lr": self.rates.at(self.step - 1)}
        if not self.history.samples:
            raise NnoptError(f"{self.data.train.source.origin}: there is no data in epoch {self.epoch}")
        if self.sides.watched is not None:
            found = self._figures("watched")
            row |= {"val_loss": found["loss"], "metric": found["metric"]}
            self.live.measured(self.data.gate.name, found["metric"])
            self.rates.seen(found["metric"], self.data.gate.larger_is_better)
            if self.sides.chooses:
                self.best.offer(found["metric"], self.epoch, self._tensors if self.keep == "best" else None)
                bad = self.epoch - self.best.epoch
                if self.patience is not None and bad >= self.patience and self.epoch < self.epochs:
                    self.stopped = f"no better {self.data.gate.name} for {bad} epochs"
        self.history.end_epoch(row)
        self.good = self._tensors()

    def _finish(self) -> None:
        """Leave in the network what is kept: weights of the best epoch or the last, or their average."""
        if self.keep == "best" and self.best.tensors is not None:
            self.put(self.best.tensors)
        elif self.average is not None:
            self.put(self.average.shadow)
        self.stepper.masks.settle()

    def _figures(self, side: str) -> dict[str, Any]:
        batches = self.sides.watched if side == "watched" else self.sides.reported
        assert batches is not None
        if self.average is None:
            found = figures(self.module, batches, self.data, self.stepper.device)
        else:
            with self.average.shown():
                found = figures(self.module, batches, self.data, self.stepper.device)
        return {"loss": found.loss, "metric": found.metrics[self.data.gate.name], "samples": found.samples}

    def _tensors(self) -> dict[str, Any]:
        """A copy of what is evaluated."""
        source = self.average.shadow if self.average is not None else named_tensors(self.module)
        return {name: value.detach().clone() for name, value in source.items()}

    def put(self, tensors: Mapping[str, Any]) -> None:
        """Put weights and statistics into the network, in place."""
        import torch

        live = named_tensors(self.module)
        with torch.no_grad():
            for name, value in tensors.items():
                live[name].copy_(value)

    def state(self) -> dict[str, Any]:
        """Everything that the rest of the training follows from."""
        self._flush()
        best = {"figure": self.best.figure, "epoch": self.best.epoch, "tensors": self.best.tensors}
        return {
            "place": [self.epoch, self.batch, self.step],
            "tensors": named_tensors(self.module),
            "optimizer": self.stepper.state(),
            "average": None if self.average is None else self.average.shadow,
            "plateau": [self.rates.plateau, self.rates.factor],
            "random": random_state(self.stepper.device),
            "history": self.history.state(),
            "gradients": [self.gradients.sums, self.gradients.steps],
            "before": self.before,
            "best": best,
            "good": self.good,
            "stopped": self.stopped,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`."""
        self.epoch, self.batch, self.step = state["place"]
        self.put(state["tensors"])
        self.stepper.load(state["optimizer"])
        if self.average is not None:
            self.average.load(state["average"])
        self.rates.plateau, self.rates.factor = state["plateau"]
        self.history = History(**state["history"])
        self.gradients.sums, self.gradients.steps = state["gradients"]
        self.before, self.stopped, self.good = state["before"], state["stopped"], state["good"]
        self.best = Best(self.data.gate.larger_is_better, **state["best"])
        set_random_state(state["random"], self.stepper.device)
