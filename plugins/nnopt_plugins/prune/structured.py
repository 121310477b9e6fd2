"""Structured pruning: choose units of a graph, cut them out, and prove that the rest computes the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, cast

from nnopt_cli import ComponentError, NnoptError, Structure, UsageError, match
from nnopt_plugins.prune.allocation import measure_drops
from nnopt_plugins.prune.budget import Budget, partial_share, read_budget
from nnopt_plugins.prune.judge import Judge
from nnopt_plugins.prune.plan import Ranked

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from nnopt_cli import Criterion, Model, Run
    from nnopt_cli.data import Data
    from nnopt_cli.graph import Check, Coupling, Evidence, Group, Keep, Stopwatch
    from nnopt_plugins.prune.passes import Prune

Allowed = Callable[["Group"], bool]


@dataclass(frozen=True)
class Step:
    """One cut: what was cut from what, and how it was checked."""

    dense: ExportedProgram
    small: ExportedProgram
    coupling: Coupling
    groups: Sequence[Group]
    keep: Keep
    check: Check


def prune_structure(method: Prune, model: Model, run: Run) -> Model:
    """The model without the units that the options say, physically smaller.

    Raises:
        NnoptError: nothing can be removed, the data do not fit, the budget cannot be met, or the check fails
            (nothing is then written).
        UsageError: no budget was given, or more than one.
    """
    budget = read_budget(method)
    program, data = model.program(), _data(method, model, run)
    with TemporaryDirectory(prefix="nnopt-") as folder:
        watch = _stopwatch(method, budget, program, Path(folder))
        if budget.kind == "max-drop" and data is not None:
            budget = replace(budget, judge=Judge(program, data, run, method.keep_best))
        budget = replace(budget, watch=watch)
        if isinstance(method.granularity, Structure):
            small = _prune_units(method, method.granularity, budget, model, data, run)
        else:
            from nnopt_plugins.prune.layers import prune_layers

            small = prune_layers(method, budget, program, model, run)
        if watch is not None:
            _measure(watch, small, budget, run)
    if data is not None:
        from nnopt_cli.data import measure

        before, after = (measure(each, data, run, (data.gate,)) for each in (program, small))
        name = data.gate.name
        shrunk = cast("dict[str, object]", run.facts["shrunk"])
        shrunk |= {"metric": (before.metrics[name], after.metrics[name]), "metric_name": name}
    return model.with_program(small, structure_changed=True)


def _data(method: Prune, model: Model, run: Run) -> Data | None:
    """What --data names, opened. Raises UsageError where the criterion needs it and it is missing."""
    if method.data is not None:
        return method.open(run, model)
    if method.criterion.needs_data:
        raise UsageError(
            f"the criterion {method.criterion.name!r} needs data",
            "Add --data FILE, or use a criterion that looks at weights only, such as l2 or lamp.",
        )
    return None


def _stopwatch(method: Prune, budget: Budget, program: ExportedProgram, folder: Path) -> Stopwatch | None:
    from nnopt_cli.graph import Stopwatch

    return Stopwatch(program, folder) if method.latency or budget.kind == "speedup" else None


def _measure(watch: Stopwatch, small: ExportedProgram, budget: Budget, run: Run) -> None:
    """Latency before and after, for the summary."""
    before, after = watch.against(small, seconds=1.0)
    shrunk = cast("dict[str, object]", run.facts["shrunk"])
    shrunk |= {"latency": (before.median, after.median), "timed_in": watch.where}
    if budget.kind == "speedup":
        run.note(
            "Latency varies from one machine to another; `nnopt bench` compares the two files elsewhere."
        )


def _prune_units(
    method: Prune, structure: Structure, budget: Budget, model: Model, data: Data | None, run: Run
) -> ExportedProgram:
    """Cut channels or heads in one or more steps."""
    from nnopt_cli.data import evidence
    from nnopt_cli.graph import analyse

    program = model.program()
    budget, allowed = budget.begun(program), _allowed(method, model)
    steps: list[Step] = []
    whole: dict[str, int] = {}  # units of each group before the first step
    for number in range(1, method.steps + 1):
        coupling = analyse(program)
        found = [group for group in structure.candidates(coupling) if allowed(group)]
        if not found and steps:
            break  # one unit is left of each
        _require_some(found, coupling, structure, narrowed=bool(method.include or method.exclude))
        whole = whole or {group.name: len(group.classes) for group in found}
        shares = _shares(method, found, model, number, run)
        known = evidence(program, coupling, data if method.criterion.needs_data else None, run)
        ranked = [
            replace(each, share=shares.get(each.group.name), whole=whole.get(each.group.name, 0))
            for each in rank(method.criterion, coupling, found, known)
        ]
        if method.allocate == "sensitivity" and data is not None and budget.allocation is None:
            budget = replace(budget, allocation=measure_drops(program, coupling, ranked, data, run))
        steps.append(_step(program, coupling, ranked, budget.part(number, method.steps), structure, run))
        program = steps[-1].small
    _report(method, steps, run)
    return program


def _allowed(method: Prune, model: Model) -> Allowed:
    """Whether --include and --exclude let a group be pruned, by the weights whose rows it is."""
    included = {name for glob in method.include for name in match(model.weights, glob)}
    excluded = {name for glob in method.exclude for name in match(model.weights, glob)}

    def allowed(group: Group) -> bool:
        rows = rows_of(group)
        return not rows & excluded and (not method.include or bool(rows & included))

    return allowed


def rows_of(group: Group) -> set[str]:
    """The parameters whose rows (axis 0) a group's units are."""
    return {member.parameter for member in group.members if member.axis == 0}


def _shares(method: Prune, groups: Sequence[Group], model: Model, number: int, run: Run) -> dict[str, float]:
    """What of the groups that a pattern of --sparsity names is gone after a step; the last pattern counts."""
    out: dict[str, float] = {}
    for share in method.sparsity:
        if share.pattern is None:
            continue
        named = set(match(model.weights, share.pattern))
        chosen = [group.name for group in groups if rows_of(group) & named]
        out.update(dict.fromkeys(chosen, partial_share(share.value, number, method.steps)))
        if not chosen and number == 1:
            run.note(
                f"--sparsity {str(share)!r} changes nothing: "
                f"what it matches makes no {method.granularity.name}s that can go."
            )
    return out


def _require_some(
    found: Sequence[Group], coupling: Coupling, structure: Structure, *, narrowed: bool
) -> None:
    if not found:
        raise (UsageError if narrowed else NnoptError)(
            f"there is nothing to prune: the graph has no group of {structure.name}s that can go",
            _why_frozen(coupling),
        )


def _step(
    program: ExportedProgram,
    coupling: Coupling,
    ranked: Sequence[Ranked],
    budget: Budget,
    structure: Structure,
    run: Run,
) -> Step:
    """Choose, cut and check. Raises NnoptError where the budget cannot be met or the check fails."""
    from nnopt_cli.graph import Keep, check_cut, cut

    keep = Keep(coupling, budget.choose(program, coupling, ranked))
    small = cut(program, coupling, keep)
    check = check_cut(program, small, coupling, keep, seed=run.seed)
    require_equal(check, f"{structure.name}s")
    return Step(program, small, coupling, [each.group for each in ranked], keep, check)


def require_equal(check: Check, what: str) -> None:
    """Raise NnoptError where a cut does not compute what the masked dense graph does."""
    if not check.passed:
        where = f", first at {check.culprit}" if check.culprit else ""
        raise NnoptError(
            f"the pruned graph does not compute what the dense one does with those {what} masked out: "
            f"they differ by {check.difference:.1e} of the largest output{where}",
            "Nothing was written. A rule of the graph analysis is wrong here; please report it.",
        )


def rank(
    criterion: Criterion,
    coupling: Coupling,
    groups: Sequence[Group],
    evidence: Evidence,
) -> list[Ranked]:
    """Score the units of every group. Raises NnoptError for a score that is not a finite number."""
    import numpy as np

    from nnopt_cli.graph import Units

    ranked = []
    for group in groups:
        units = Units(coupling, group, evidence)
        scores = np.asarray(criterion.score_units(units))
        real = scores.dtype.kind in "fiub" and scores.shape == (len(units),)
        if not real or not np.isfinite(scores).all():
            raise ComponentError(
                criterion,
                f"does not give one finite number per unit for the channels of {group.name}",
                "Weights that are NaN or infinite do that: `nnopt inspect` counts them.",
            )
        ranked.append(Ranked(group, scores.astype(np.float64)))
    return ranked


def _why_frozen(coupling: Coupling) -> str:
    if not coupling.frozen:
        return "All its channels are inputs, outputs or tied to them, or --include and --exclude leave none."
    shown = "; ".join(f"{place.operator} at {place.node}: {place.why}" for place in coupling.frozen[:3])
    return f"What keeps channels from going: {shown}."


def _report(method: Prune, steps: Sequence[Step], run: Run) -> None:
    first, last = steps[0], steps[-1]
    units = {group.name: len(group.classes) for group in first.groups}
    left = {group.name: last.keep.count_classes(group.classes) for group in last.groups}
    worst = max(step.check.difference for step in steps)
    batches = " and ".join(map(str, last.check.batches))
    run.facts["units"] = [sum(units.values()), sum(left.get(name, 1) for name in units)]
    run.facts["shrunk"] = {
        **cost_facts(first.dense, last.small),
        "what": f"{method.granularity.name}s",
        "widths": [{"layer": n, "before": k, "after": left.get(n, 1)} for n, k in units.items()],
        "difference": worst,
        "dtype": last.check.dtype,
    }
    run.note(
        f"Checked: it computes what the dense graph does with the removed {method.granularity.name}s masked "
        f"out, to {worst:.1e} of the largest output, in {last.check.dtype}, at batch sizes {batches}."
    )
    for place in first.coupling.frozen[:3]:
        run.note(f"Channels through {place.operator} ({place.node}) were kept: {place.why}.")
    if len(first.coupling.frozen) > 3:
        run.note(f"So were channels through {len(first.coupling.frozen) - 3} more operators.")


def cost_facts(dense: ExportedProgram, small: ExportedProgram) -> dict[str, tuple[int, int]]:
    """MACs and activation memory, before and after."""
    from nnopt_cli.graph import costs

    before, after = costs(dense), costs(small)
    return {
        "macs": (before.macs, after.macs),
        "activation_bytes": (before.peak_bytes, after.peak_bytes),
    }
