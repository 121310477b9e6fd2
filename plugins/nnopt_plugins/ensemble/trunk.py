"""One trunk for all members: their aligned lowest layers, averaged; the rest stays apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from nnopt_cli import UsageError
from nnopt_cli.data import as_call, main_output, score
from nnopt_plugins.ensemble.alignment import Activations, Weights, averaged, require_one_graph
from nnopt_plugins.ensemble.refresh import choosing
from nnopt_plugins.ensemble.statistics import reestimated

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from nnopt_cli import Members, Model, Run
    from nnopt_plugins.ensemble.outputs_networks import Combine, Meaning

_MARGIN = 0.005  # of the metric: what a shared trunk may cost
Network = Callable[["Members", "Meaning"], "Combine"]


def with_shared_trunk(members: Members, network: Network, meaning: Meaning, run: Run) -> Members:
    """The members with as many of their lowest layers alike as `members.share_trunk` says or the data allow.

    Layers are counted in the order of the graph; a layer is a weight of two or more dimensions and what
    follows it up to the next one: its bias, its norm.

    Raises UsageError: members are of different architectures, there are fewer layers, or `auto` has no data.
    """
    require_one_graph(members)
    if members.aligned is None:
        method = Weights() if members.data is None else Activations()
        members = replace(members, models=method.aligned(members, run).models)
    found = layers(members.models[0].program())
    wanted = members.share_trunk
    if isinstance(wanted, int):
        if wanted > len(found):
            raise UsageError(f"--share-trunk {wanted}: the network has {len(found)} layers")
        return _alike(members, found[:wanted], run)
    if members.data is None:
        raise UsageError(
            "--share-trunk auto is decided by a metric",
            "Add --data, or say how many layers: --share-trunk 3.",
        )
    return _most(members, found, network(members, meaning), run)


def layers(program: ExportedProgram) -> list[list[str]]:
    """The names of the tensors of each layer, in the order in which the graph reads them."""
    targets = {s.arg.name: str(s.target) for s in program.graph_signature.input_specs if s.target}
    out: list[list[str]] = []
    seen: set[str] = set()
    for node in program.graph.nodes:
        if node.op != "call_function":
            continue
        for source in node.all_input_nodes:
            name = targets.get(source.name)
            if name is None or name in seen or name not in program.state_dict:
                continue
            seen.add(name)
            parameter = name in program.graph_signature.parameters
            if parameter and program.state_dict[name].dim() > 1:
                out.append([])
            if out:
                out[-1].append(name)
    return out


def _most(members: Members, found: Sequence[list[str]], network: Combine, run: Run) -> Members:
    """The longest trunk that the metric allows, by bisection: the more is shared, the less is left."""
    assert members.data is not None
    data = choosing(members.data)

    def measured(candidate: Members) -> float:
        programs = [model.program() for model in candidate.models]
        return score(_Together(programs, network, run.device), data, run)

    apart = measured(members)
    least = apart - _MARGIN * abs(apart)
    best, kept, reached = 0, members, apart
    low, high = 0, len(found)
    while low < high:
        middle = (low + high + 1) // 2
        candidate = _alike(members, found[:middle], run)
        value = measured(candidate)
        if value >= least:
            low, best, kept, reached = middle, middle, candidate, value
        else:
            high = middle - 1
    run.facts["trunk"] = {"layers": best, "of": len(found), "apart": apart, "shared": reached}
    name = data.gate.name
    if best:
        run.note(
            f"Shared trunk: the lowest {best} of {len(found)} layers; {name} on the choosing data is "
            f"{abs(reached):.4f}, {abs(apart):.4f} with nothing averaged."
        )
    else:
        run.note(f"No layer can be averaged with {name} within {_MARGIN:.1%} of {abs(apart):.4f}.")
    return kept


def _alike(members: Members, found: Sequence[list[str]], run: Run) -> Members:
    """The members with the same values in these layers, and with fitting statistics where there are data."""
    names = {name for layer in found for name in layer}
    if not names:
        return members
    mean = averaged(members.models, names)
    models: list[Model] = [_with(model, mean, names) for model in members.models]
    if members.data is not None:
        measured = [reestimated(model, members.data, run) for model in models]
        models = [_with(model, measured[0], names) for model in measured]
    return replace(members, models=tuple(models))


def _with(model: Model, source: Model, names: set[str]) -> Model:
    """`model` with the named tensors of `source`."""
    chosen = [name for name in model.unique() if name in names]
    return model.map(lambda name, _: source.weights[name].torch().clone(), chosen)


class _Together(nn.Module):
    """The members one after another, and what combines their outputs."""

    def __init__(self, programs: Sequence[ExportedProgram], network: Combine, device: str) -> None:
        super().__init__()
        self._calls = [as_call(program, device) for program in programs]
        self.network = network.to(device)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        with torch.no_grad():
            out: Tensor = self.network([main_output(call(*args, **kwargs)) for call in self._calls])
        return out
