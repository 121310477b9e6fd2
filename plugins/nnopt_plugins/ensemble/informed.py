"""Averages that look at data: which members to take, and how much each of their weights matters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import PrivateAttr

from nnopt_cli import NnoptError, Weighting, option
from nnopt_plugins.ensemble.base import Method
from nnopt_plugins.ensemble.combinations import Linear

if TYPE_CHECKING:
    from torch import Tensor

    from nnopt_cli import Array, Corresponding, Members, Model, Run
    from nnopt_cli.data import Data


class Soup(Linear):
    """The greedy soup: members join the average, the best first, while the metric on --data does not fall.

    Wortsman et al., "Model soups", arXiv:2203.05482, recipe 1 with the greedy rule. On the choosing data it
    is never worse than the best member; --val or --val-split keep other rows for the report.
    """

    needs: ClassVar[Literal["weights", "module", "graph"]] = "module"
    needs_data: ClassVar[bool] = True
    weighted: ClassVar[bool] = False

    def fuse(self, members: Members, run: Run) -> Model:
        from nnopt_plugins.ensemble.refresh import chosen_score, refreshed, warn_if_seen

        assert members.data is not None
        alone = [chosen_score(model, members.data, run) for model in members.models]
        order = sorted(range(len(alone)), key=lambda place: (-alone[place], place))
        taken, best = [order[0]], alone[order[0]]
        soup = members.models[order[0]]
        for place in order[1:]:
            candidate = self._average(members, [*taken, place], run)
            found = chosen_score(candidate, members.data, run)
            if found >= best:
                taken, best, soup = [*taken, place], found, candidate
        run.facts["soup"] = [
            {"member": name, "alone": abs(score), "taken": place in taken}
            for place, (name, score) in enumerate(zip(members.names, alone, strict=True))
        ]
        names = ", ".join(members.names[place] for place in taken)
        run.note(
            f"The soup is of {names}: {members.data.gate.name} on the choosing data {abs(best):.4f}, "
            f"best member {abs(alone[order[0]]):.4f}."
        )
        some = tuple(members.models[place] for place in taken)
        soup = refreshed(soup, replace(members, models=some, weighting=Weighting()), run)
        warn_if_seen(soup, members.data, run)
        return soup

    def _average(self, members: Members, places: Sequence[int], run: Run) -> Model:
        models = tuple(members.models[place] for place in places)
        return Method.merged(self, replace(members, models=models, weighting=Weighting()), run)


class Fisher(Method):
    """The mean in which each weight counts by how much the outputs depend on it (diagonal Fisher matrix).

    Matena and Raffel, "Merging models with Fisher-weighted averaging", arXiv:2111.09832, equation 5. For
    classes, labels are drawn from each member's own predictions, as there; else the data's targets count.
    """

    needs: ClassVar[Literal["weights", "module", "graph"]] = "graph"
    needs_data: ClassVar[bool] = True

    samples: int = option(
        256, help="Rows of --data that the Fisher matrix is estimated on, one by one.", ge=1
    )
    floor: float = option(
        1e-6, help="Least weight, as a share of a tensor's mean: where it is all zero.", gt=0
    )

    _found: list[Mapping[str, Array]] = PrivateAttr(default_factory=list)

    def fuse(self, members: Members, run: Run) -> Model:
        assert members.data is not None
        found = [_diagonal(model, members.data, self.samples, run) for model in members.models]
        if not any(name in found[0] for name in members.models[0].weights):
            raise NnoptError(
                f"{members.names[0]}: its graph names other parameters than the file",
                "Write a .pt2 of each member with `nnopt convert` first.",
            )
        method = self.model_copy()
        method._found = found
        return super(Fisher, method).fuse(members, run)

    def survey(self, tensor: Corresponding) -> list[Array] | None:
        import numpy as np

        if not all(tensor.name in each for each in self._found):
            return None  # running statistics, which have no gradient
        weights = []
        for each, share in zip(self._found, tensor.shares, strict=True):
            own = each[tensor.name]
            least = max(self.floor * float(own.mean()), np.finfo(np.float32).tiny)
            weights.append(np.maximum(own, least) * own.dtype.type(share))
        return weights

    def merge(self, values: Sequence[Array], tensor: Corresponding, found: Any, start: int) -> Array:
        from nnopt_plugins.ensemble.formulas import combined, weighted_mean

        if found is None:
            return combined(values, tensor.shares)
        return weighted_mean(values, [each[start : start + len(values[0])] for each in found])


def _diagonal(model: Model, data: Data, samples: int, run: Run) -> dict[str, Array]:
    """The mean squared gradient of each parameter, flat float32, by name."""
    import torch

    from nnopt_cli.data import gradients

    rows = data.plain
    size = 1 if rows.assembly.expected.batch is None else rows.batch_size
    if rows.rows is not None:
        rows = replace(rows, rows=rows.rows[:samples], pixels={})
    else:
        rows = replace(rows, limit=samples)
    draw = torch.Generator(run.device).manual_seed(run.seed)

    def loss(outputs: Tensor, target: Tensor) -> Tensor:
        if data.task.kind == "classification" and outputs.dim() == 2:
            drawn = torch.multinomial(outputs.detach().float().softmax(1), 1, generator=draw)
            return torch.nn.functional.cross_entropy(outputs, drawn[:, 0])
        return data.loss(outputs, target)

    _, squares = gradients(model.program(), replace(rows, batch_size=size), loss, run)
    return {name: value.numpy().reshape(-1) for name, value in squares.items()}
