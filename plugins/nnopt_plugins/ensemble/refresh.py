"""Batch-norm statistics after a merge: taken anew where the held-out metric says that this is better."""

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


def refreshed(model: Model, members: Members, run: Run) -> Model:
    """`model` with batch-norm statistics from the data, if the metric is better with them.

    Averaged weights give other activations than the averaged statistics describe: Izmailov et al.,
    arXiv:1803.05407, section 3.2; Jordan et al., "REPAIR", arXiv:2211.08403.
    """
    if members.data is None or not any(name.endswith("running_var") for name in model.weights):
        return model
    from nnopt_plugins.ensemble.statistics import reestimated

    other = reestimated(model, members.data, run)
    if other is model:
        return model
    before, after = (chosen_score(each, members.data, run) for each in (model, other))
    better = after > before
    said = "were re-estimated" if better else "are averaged"
    run.note(
        f"Batch-norm statistics {said}: {members.data.gate.name} on the choosing data is {abs(after):.4f} "
        f"with re-estimated ones, {abs(before):.4f} with averaged ones."
    )
    return other if better else model
