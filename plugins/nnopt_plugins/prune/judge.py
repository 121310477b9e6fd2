"""How much may go until a metric falls too far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from nnopt_cli import GateMissedError

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from nnopt_cli import Run
    from nnopt_cli.data import Data
    from nnopt_cli.graph import Coupling
    from nnopt_plugins.prune.budget import Budget
    from nnopt_plugins.prune.plan import Ranked

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

    def largest(
        self, budget: Budget, program: ExportedProgram, coupling: Coupling, ranked: Sequence[Ranked]
    ) -> float:
        """The largest share that keeps the metric, by bisection.

        Raises GateMissedError where none that was tried does.
        """
        from nnopt_cli.graph import Keep, cut

        low, high, nearest = 0.0, 1.0, (float("-inf"), 0.0)
        for _ in range(TRIES):
            share = (low + high) / 2
            gone = budget.plan(ranked, share)
            if not len(gone):
                break  # so small a share that no unit goes
            value = self.score(cut(program, coupling, Keep(coupling, gone)))
            nearest = max(nearest, (value, share))
            if value >= self.first - budget.value:
                low = share
            else:
                high = share
        if low:
            return low
        text = f"--max-drop {budget.value:g}: even the smallest cut lowers {self._data.gate.name} by "
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
