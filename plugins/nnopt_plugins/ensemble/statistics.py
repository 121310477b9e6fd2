"""What merged weights need: batch-norm statistics measured anew, and units that respond like the members'."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor
    from torch.export import ExportedProgram

    from nnopt_cli import Members, Model, Run
    from nnopt_cli.data import Data


def reestimated(model: Model, data: Data, run: Run) -> Model:
    """The model with the running statistics of its batch norms measured on `data.plain`.

    Itself where it has none. On the graph, or on the module where there is no graph.
    """
    found = _of_program(model, data, run) if model.rung == "graph" else _of_module(model, data, run)
    names = [name for name in found if name in model.weights]
    if not names:
        return model
    return model.map(lambda name, old: found[name].to(old.dtype).reshape(old.shape), names)


def repaired(model: Model, members: Members, run: Run) -> Model:
    """The model with every layer's units given the mean and spread that they have in the members.

    Jordan et al., "REPAIR", arXiv:2211.08403; folded into weights and biases. Batch norms get new statistics.
    Itself where it has no graph, or no layer that this can be done to. `members` are of the same graph,
    their units in one order, with data.
    """
    from nnopt_cli.data import placed
    from nnopt_cli.graph import Responses, responses
    from nnopt_cli.graph import repaired as repair

    assert members.data is not None
    if model.rung != "graph":
        return model
    theirs = [placed(member.program(), run.device) for member in members.models]
    each = [responses(program, _feeds(program, members.data, run)) for program in theirs]
    even = (1 / len(each),) * len(each)
    wanted = {
        name: Responses.between([found[name] for found in each], members.weighting.of(name) or even)
        for name in each[0]
    }
    if not wanted:
        return model
    program = placed(model.program(), run.device)
    found = repair(program, wanted, _feeds(program, members.data, run))
    names = [name for name in found if name in model.weights]
    return model.map(lambda name, old: found[name].cpu().to(old.dtype).reshape(old.shape), names)


def _of_program(model: Model, data: Data, run: Run) -> Mapping[str, Tensor]:
    from nnopt_cli.data import placed
    from nnopt_cli.graph import norm_statistics

    program = placed(model.program(), run.device)
    found = norm_statistics(program, _feeds(program, data, run))
    return {name: value.cpu() for name, value in found.items()}


def _feeds(program: ExportedProgram, data: Data, run: Run) -> Iterator[list[Any]]:
    """The program's flat inputs, batch by batch; a single sample has no statistics."""
    from nnopt_cli.data import flat_inputs

    return (flat_inputs(program, batch) for batch in data.plain.on(run.device) if batch.size > 1)


def _of_module(model: Model, data: Data, run: Run) -> Mapping[str, Tensor]:
    import torch
    from torch.nn.modules.batchnorm import _BatchNorm

    module = model.module().to(run.device)
    norms = {
        name: part
        for name, part in module.named_modules()
        if isinstance(part, _BatchNorm) and part.track_running_stats
    }
    for norm in norms.values():
        norm.reset_running_stats()
        norm.momentum = None  # the mean over batches
        norm.train()
    with torch.no_grad():
        for batch in data.plain.on(run.device) if norms else ():
            if batch.size > 1:
                batch.call(module)
    return {
        f"{name}.{kind}".lstrip("."): getattr(norm, kind).cpu()
        for name, norm in norms.items()
        for kind in ("running_mean", "running_var")
    }
