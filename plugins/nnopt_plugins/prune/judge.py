"""How much may go until a metric falls too far."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from nnopt_cli import GateMissedError, NnoptError

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from nnopt_cli import Run
    from nnopt_cli.data import Data

TRIES = 7  # bisections: the share is found to a hundredth
SEEN = 0.03  # how much better than on other rows a metric is on rows that a model has probably seen


class Judge:
    """Measures programs on the rows that choose, which are those of `--data`.

    Attributes:
        first: the metric of the model as it was, larger for better.
    """

    def __init__(self, dense: ExportedProgram, data: Data, run: Run, keep_best: bool) -> None:
        """`keep_best`: take what comes nearest where nothing meets the bar."""
        self._data, self._run, self._keep_best = replace(data, val=None), run, keep_best
        self.first = self.score(dense)
        self._warn(dense, data)

    def score(self, program: ExportedProgram) -> float:
        """The metric, larger for better."""
        from nnopt_cli.data import score

        return score(program, self._data, self._run)

    def largest(self, drop: float, make: Callable[[float], ExportedProgram | None]) -> float:
        """The largest share that lowers the metric by no more than `drop`, by bisection.

        `make` gives the program that is left when a share goes, or None where nothing does. Raises
        GateMissedError where no share that was tried is good enough.
        """
        low, high, nearest, met = 0.0, 1.0, (float("-inf"), 0.0), False
        for _ in range(TRIES):
            share = (low + high) / 2
            small = make(share)
            if small is None:
                low = share
                continue
            value = self.score(small)
            nearest = max(nearest, (value, share))
            if value >= self.first - drop:
                low, met = share, True
            else:
                high = share
        if met:
            return low
        if not math.isfinite(nearest[0]):
            raise NnoptError("--max-drop: nothing can go", "--include, --exclude or --round-to leave none.")
        text = f"--max-drop {drop:g}: even the smallest cut lowers {self._data.gate.name} by "
        text += f"{self.first - nearest[0]:.4f}, from {abs(self.first):.4f} to {abs(nearest[0]):.4f}"
        if not self._keep_best:
            raise GateMissedError(text, "Allow more, fine-tune, or add --keep-best to write that model.")
        self._run.gate_missed = True
        self._run.note(text + ".")
        return nearest[1]

    def _warn(self, dense: ExportedProgram, data: Data) -> None:
        """Say what a metric is worth on the rows that it was chosen by."""
        if data.val is None:
            self._run.note(
                "How much was removed was chosen on the rows that the metric is shown for, so it flatters: "
                "`nnopt evaluate` on other rows, or --val, says what the model is worth."
            )
            return
        from nnopt_cli.data import score

        other = score(dense, data, self._run)
        if self.first > other + SEEN:
            self._run.note(
                f"Before anything was removed, {data.gate.name} was {self.first:.4f} on --data and "
                f"{other:.4f} on the validation rows: the model has probably seen --data, "
                "which then choose badly."
            )
