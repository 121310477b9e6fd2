"""How much of a graph goes: a share of its units, or what its size, cost or latency must come down to."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from nnopt_cli import NnoptError
from nnopt_plugins.prune.plan import Ranked, plan, search

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch.export import ExportedProgram

    from nnopt_cli.graph import Coupling, Stopwatch
    from nnopt_plugins.prune.judge import Judge
    from nnopt_plugins.prune.plan import Classes

Kind = Literal["sparsity", "params", "macs", "speedup", "max-drop"]
_TIMED_STEPS = 5  # bisections of a measured budget: each is a cut and a timing


@dataclass(frozen=True)
class Budget:
    """What a cut must reach.

    Attributes:
        kind: what is budgeted.
        value: the share of units to remove, the share of parameters or MACs to keep, how many times
            faster to become, or how much of the metric may be lost.
        scope: over what scores compete.
        round_to: widths are multiples of this.
        whole: parameters or MACs of the model before its first step.
        judge: the metric of a program, larger for better, where that is asked for.
        watch: times a program against the model as it was before its first step, where that is asked for.
    """

    kind: Kind
    value: float
    scope: Literal["global", "layer"] = "layer"
    round_to: int = 1
    whole: float | None = None
    watch: Stopwatch | None = None
    judge: Judge | None = None

    def part(self, number: int, of: int) -> Budget:
        """The budget of the `number`th of `of` steps towards it, each by the same factor."""
        if self.kind == "sparsity":
            return replace(self, value=partial_share(self.value, number, of))
        if self.kind == "max-drop":
            return replace(self, value=self.value * number / of)
        return replace(self, value=self.value ** (number / of))

    def begun(self, program: ExportedProgram) -> Budget:
        """The same budget, relative to `program`."""
        from nnopt_cli.graph import costs

        if self.kind in ("params", "macs"):
            return replace(self, whole=float(_cost(self.kind, costs(program))))
        return self

    def choose(self, program: ExportedProgram, coupling: Coupling, ranked: Sequence[Ranked]) -> Classes:
        """The units that go. Raises NnoptError if even the smallest model that is left is too large."""
        from nnopt_cli.graph import Keep, costs

        if self.kind == "sparsity":
            return self.plan(ranked, self.value)
        if self.kind == "speedup":
            return self._until_fast(program, coupling, ranked)
        if self.kind == "max-drop":
            assert self.judge is not None
            return self.plan(ranked, self.judge.largest(self, program, coupling, ranked))
        assert self.whole is not None

        def left(share: float) -> float:
            keep = Keep(coupling, self.plan(ranked, share))
            return _cost(self.kind, costs(program, 1, coupling, keep)) / (self.whole or 1.0)

        share = search(lambda s: left(s) <= self.value)
        if share is None:
            raise NnoptError(
                f"--{self.kind} {self.value:g} cannot be met: with one unit left in every group, "
                f"{left(1.0):.1%} of the {'parameters' if self.kind == 'params' else 'MACs'} remain",
                "Ask for less, or let more layers be pruned (--include, --exclude).",
            )
        return self.plan(ranked, share)

    def plan(self, ranked: Sequence[Ranked], share: float) -> Classes:
        """The units that go at a share."""
        return plan(ranked, share, self.scope, self.round_to)

    def _until_fast(self, program: ExportedProgram, coupling: Coupling, ranked: Sequence[Ranked]) -> Classes:
        """The smallest share whose cut runs `value` times faster here, measured side by side."""
        from nnopt_cli.graph import Keep, cut

        watch = self.watch
        assert watch is not None

        def fast(share: float) -> bool:
            small = cut(program, coupling, Keep(coupling, self.plan(ranked, share)))
            dense, now = watch.against(small)
            return dense.median >= self.value * now.median

        share = search(fast, _TIMED_STEPS)
        if share is None:
            raise NnoptError(
                f"--speedup {self.value:g} cannot be met on this machine, even with one unit per group left",
                "Ask for less, or let more layers be pruned (--include, --exclude).",
            )
        return self.plan(ranked, share)


def partial_share(share: float, number: int, of: int) -> float:
    """What is gone of the whole after the `number`th of `of` steps, each of which keeps the same fraction."""
    return share if number == of else 1 - (1 - share) ** (number / of)


def _cost(kind: Kind, found: object) -> float:
    return float(getattr(found, "parameters" if kind == "params" else "macs"))
