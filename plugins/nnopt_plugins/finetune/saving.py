"""When and where the state of a training is saved, and what is said about it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnopt_cli import NnoptError, UsageError, load_state
from nnopt_plugins.finetune import checkpoint
from nnopt_plugins.finetune.spans import Interval

if TYPE_CHECKING:
    from nnopt_cli import Run
    from nnopt_plugins.finetune.interrupt import Interruption
    from nnopt_plugins.finetune.loop import Trainer
    from nnopt_plugins.finetune.passes import Finetune

_LONG = 60.0  # seconds of training from which even its end is saved, before the output is written


class Saving:
    """Called after every step: saves when it is due, and when somebody asked to stop.

    Attributes:
        path: the checkpoint's; None where nothing may be written.
        settings: what the result follows from, by which a checkpoint knows its training.
        interruption: whether somebody asked to stop.
        written: whether there is a checkpoint to remove in the end.
    """

    def __init__(
        self, method: Finetune, run: Run, settings: Mapping[str, Any], interruption: Interruption
    ) -> None:
        self._run = run
        output = run.output
        beside = None if output is None else output.with_name(f"{output.name}.checkpoint")
        self.path: Path | None = method.checkpoint or beside
        resumed = None if method.resume is None else method.resume.resolve()
        self.written = self.path is not None and self.path.resolve() == resumed
        self._check()
        self.settings = settings
        self.interruption = interruption
        self._interval = Interval.parse(method.checkpoint_every)
        self._started = time.monotonic()
        self._interval.start(self._started)

    def _check(self) -> None:
        """Before any work: whether a checkpoint can be written, and over what."""
        path = self.path
        if path is None:
            return
        if path.is_dir() or not path.parent.is_dir():
            wrong = "is a folder" if path.is_dir() else f"there is no folder {path.parent}"
            raise UsageError(f"--checkpoint {path}: {wrong}", "Name a file, in a folder that exists.")
        if not path.exists() or self.written:
            return
        try:
            load_state(path)
        except NnoptError:
            raise NnoptError(
                f"{path}: is in the way of the checkpoint, and is none itself",
                "Move it, or name another file with --checkpoint.",
            ) from None
        if self._run.verbose >= 0:
            self._run.console.print(
                f"{path} is of an earlier training, which --resume would go on with; it is replaced.",
                soft_wrap=True,
                markup=False,
            )

    def __call__(self, trainer: Trainer) -> None:
        """After a step. Raises KeyboardInterrupt after saving, where that was asked for."""
        if self.interruption.asked:
            self._stop(trainer)
        if self.path is not None and self._interval.due(trainer.step, time.monotonic()):
            try:
                self._save(trainer)
            except (NnoptError, OSError) as error:  # training is worth more than its checkpoint
                why = error.message if isinstance(error, NnoptError) else str(error)
                self._run.note(f"A checkpoint could not be saved: {why}")

    def finish(self, trainer: Trainer) -> None:
        """After the last step: save long work once more; all goes when the output is there."""
        if self.path is None:
            return
        if self.written or time.monotonic() - self._started > _LONG:
            try:
                self._save(trainer)
            except (NnoptError, OSError) as error:
                self._run.note(f"The last checkpoint could not be saved: {error}")
        if self.written:
            self._run.after.append(self._remove)

    def _save(self, trainer: Trainer) -> None:
        assert self.path is not None
        checkpoint.write(self.path, self.settings, trainer.state())
        self.written = True

    def _remove(self) -> None:
        assert self.path is not None
        self.path.unlink(missing_ok=True)

    def _stop(self, trainer: Trainer) -> None:
        if self.path is None:
            self._run.console.print("Stopped; nothing was saved, as nothing may be written.")
            raise KeyboardInterrupt
        self._save(trainer)
        self._run.console.print(
            f"Saved after step {trainer.step:,} of epoch {trainer.epoch + 1}. To go on, run the same command "
            f"with --resume {self.path}",
            soft_wrap=True,
            markup=False,
        )
        raise KeyboardInterrupt
