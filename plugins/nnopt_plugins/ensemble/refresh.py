"""Statistics and spreads after a merge: set anew where the held-out metric says that this is better."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from nnopt_cli.data import score

if TYPE_CHECKING:
    from nnopt_cli import Members, Model, Run
    from nnopt_cli.data import Data


def choosing(data: Data) -> Data:
    """The same data, metrics taken on the rows that choices are made on."""
    return replace(data, val=None)


def chosen_score(model: Model, data: Data, run: Run) -> float:
    """The metric that decides, on the rows for choosing; larger is better."""
    return score(model.program() if model.arch is None else model.module(), choosing(data), run)


def refreshed(model: Model, members: Members, run: Run, *, repair: bool = True) -> Model:
    """`model` as its batch norms and, of aligned members, its units respond best, by the metric for choosing.

    Averaged weights give other activations than the averaged statistics describe: Izmailov et al.,
    arXiv:1803.05407, section 3.2; Jordan et al., "REPAIR", arXiv:2211.08403. `repair` is whether the model
    is a mean of the members, so that its units can be held to theirs.
    """
    if members.data is None:
        return model
    from nnopt_plugins.ensemble.statistics import reestimated, repaired

    metric = members.data.gate.name
    if any(name.endswith("running_var") for name in model.weights):
        model, better, said = _better(model, reestimated(model, members.data, run), members.data, run)
        done = "were re-estimated" if better else "are averaged"
        if said:
            run.note(
                f"Batch-norm statistics {done}: {metric} on the choosing data is {said[1]} with re-estimated "
                f"ones, {said[0]} with averaged ones."
            )
    if repair and members.aligned is not None:
        model, better, said = _better(model, repaired(model, members, run), members.data, run)
        done = (
            "were given the mean and spread that they have in the members" if better else "stay as averaged"
        )
        if said:
            run.note(
                f"Units {done}: {metric} on the choosing data is {said[1]} with their responses repaired, "
                f"{said[0]} without."
            )
    return model


def _better(model: Model, other: Model, data: Data, run: Run) -> tuple[Model, bool, tuple[str, ...]]:
    """The better of two by the metric for choosing, whether it is the other, and both figures to print.

    No figures where the two are the same model.
    """
    if other is model:
        return model, False, ()
    before, after = (chosen_score(each, data, run) for each in (model, other))
    better = after > before
    return other if better else model, better, (f"{abs(before):.4f}", f"{abs(after):.4f}")


def warn_if_seen(model: Model, data: Data, run: Run) -> None:
    """Note where the choosing data look as if the members had been trained on them.

    That is where the metric on them is better than on the rows kept for the report by more than four
    standard errors (of a share of so many samples) and two hundredths.
    """
    if data.val is None:
        run.note(
            "The choice was made on the rows that are reported; --val or --val-split keep others for that."
        )
        return
    choosing_value = chosen_score(model, data, run)
    reported = score(model.program() if model.arch is None else model.module(), data, run)
    if not 0 <= min(choosing_value, reported) <= max(choosing_value, reported) <= 1:
        return  # no share: nothing is known of its spread
    sizes = [part.size or 1 for part in (data.plain, data.val)]
    spread = (reported * (1 - reported) * sum(1 / size for size in sizes)) ** 0.5
    if choosing_value - reported > max(0.02, 4 * spread):
        run.note(
            f"{data.gate.name} is {choosing_value:.4f} on the choosing data, {reported:.4f} on the others: "
            "members have probably been trained on the choosing data, which then cannot tell what to take."
        )
