"""How much of a graph goes: a share of its units, or what its size, cost or latency must come down to."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from nnopt_cli import NnoptError, Structure, UsageError
from nnopt_plugins.prune.plan import Ranked, plan, search

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch.export import ExportedProgram

    from nnopt_cli.graph import Coupling, Stopwatch
    from nnopt_plugins.prune.allocation import Allocation
    from nnopt_plugins.prune.judge import Judge
    from nnopt_plugins.prune.passes import Prune
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
        allocation: how a share is spread over the groups, where it is not even.
        watch: times a program against the model as it was before its first step, where that is asked for.
    """

    kind: Kind
    value: float
    scope: Literal["global", "layer"] = "layer"
    round_to: int = 1
    whole: float | None = None
    allocation: Allocation | None = None
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
        return replace(self, whole=size(program, self.kind)) if self.kind in ("params", "macs") else self

    def choose(self, program: ExportedProgram, coupling: Coupling, ranked: Sequence[Ranked]) -> Classes:
        """The units that go. Raises what `share` does."""
        from nnopt_cli.graph import Keep, costs, cut

        def keep(share: float) -> Keep | None:
            gone = self.plan(ranked, share)
            return Keep(coupling, gone) if len(gone) else None

        def small(share: float) -> ExportedProgram | None:
            kept = keep(share)
            return cut(program, coupling, kept) if kept else None

        def cost(share: float) -> float:
            return _cost(self.kind, costs(program, 1, coupling, keep(share)))

        return self.plan(ranked, self.share(small, cost, "with one unit left in every group"))

    def share(
        self, make: Callable[[float], ExportedProgram | None], cost: Callable[[float], float], least: str
    ) -> float:
        """The share that meets the budget.

        Args:
            make: the program that is left when a share goes; None where nothing does.
            cost: its parameters or MACs, whichever are budgeted.
            least: words for what is left when all that can go does.

        Raises:
            NnoptError: even the smallest model that is left is too large or too slow.
            GateMissedError: even the smallest cut lowers the metric too far.
        """
        if self.kind == "sparsity":
            return self.value
        if self.kind == "max-drop":
            assert self.judge is not None
            return self.judge.largest(self.value, make)
        if self.kind == "speedup":
            share = search(lambda s: self._fast(make(s)), _TIMED_STEPS)
            reached = "this machine is too slow even"
        else:
            whole = self.whole or 1.0
            share = search(lambda s: cost(s) <= self.value * whole)
            what = "parameters" if self.kind == "params" else "MACs"
            reached = f"{cost(1.0) / whole:.1%} of the {what} remain even"
        if share is None:
            raise NnoptError(
                f"--{self.kind} {self.value:g} cannot be met: {reached} {least}",
                "Ask for less, or let more layers be pruned (--include, --exclude).",
            )
        return share

    def plan(self, ranked: Sequence[Ranked], share: float) -> Classes:
        """The units that go at a share."""
        if self.allocation is not None:
            ranked = self.allocation.spread(ranked, share)
        return plan(ranked, share, self.scope, self.round_to)

    def _fast(self, small: ExportedProgram | None) -> bool:
        """Whether it runs `value` times faster here than the model did, measured side by side."""
        assert self.watch is not None
        if small is None:
            return False
        dense, now = self.watch.against(small)
        return dense.median >= self.value * now.median


def read_budget(method: Prune) -> Budget:
    """The one budget that the options name. Raises UsageError for none or several."""
    scope = method.scope or "layer"
    whole = [share.value for share in method.sparsity if share.pattern is None]
    if method.speedup is not None and float(method.speedup.rstrip("x")) <= 1:
        raise UsageError(f"--speedup {method.speedup}: is no speedup", "Write 2x to become twice as fast.")
    named: list[Budget] = [Budget("sparsity", whole[-1], scope, method.round_to)] if whole else []
    if method.params is not None:
        named.append(Budget("params", method.params, scope, method.round_to))
    if method.macs is not None:
        named.append(Budget("macs", method.macs, scope, method.round_to))
    if method.speedup is not None:
        named.append(Budget("speedup", float(method.speedup.rstrip("x")), scope, method.round_to))
    if method.max_drop is not None:
        named.append(Budget("max-drop", method.allowed_drop(), scope, method.round_to))
    if not named and method.sparsity:
        return Budget("sparsity", 0.0, scope, method.round_to)  # only what the patterns name
    if len(named) != 1:
        what = method.granularity.name
        raise UsageError(
            f"--granularity {what} needs exactly one of --sparsity, --params, --macs, --speedup, --max-drop",
            f"For example --sparsity 0.5 removes half of the {what}s.",
        )
    kind = named[0].kind
    if kind == "max-drop" and method.data is None:
        raise UsageError("--max-drop needs data to measure on", "Add --data FILE.")
    if method.keep_best and kind != "max-drop":
        raise UsageError("--keep-best goes with --max-drop only")
    if method.allocate == "sensitivity":
        _check_allocation(method)
    return named[0]


def _check_allocation(method: Prune) -> None:
    if not isinstance(method.granularity, Structure):
        raise UsageError(
            f"--allocate does not go with --granularity {method.granularity.name}",
            "Layers go whole, the least important first.",
        )
    if method.data is None:
        raise UsageError("--allocate sensitivity needs data to measure on", "Add --data FILE.")
    if method.scope == "global":
        raise UsageError(
            "--allocate sensitivity does not go with --scope global",
            "Under --scope global the scores say how much of each layer goes.",
        )


def partial_share(share: float, number: int, of: int) -> float:
    """What is gone of the whole after the `number`th of `of` steps, each of which keeps the same fraction."""
    return share if number == of else 1 - (1 - share) ** (number / of)


def size(program: ExportedProgram, kind: Kind) -> float:
    """The parameters of a program where they are budgeted, else its MACs."""
    from nnopt_cli.graph import costs

    return _cost(kind, costs(program))


def _cost(kind: Kind, found: object) -> float:
    return float(getattr(found, "parameters" if kind == "params" else "macs"))
