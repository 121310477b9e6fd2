"""Batch-norm statistics, measured anew on data: what merged weights need (REPAIR, arXiv:2211.08403)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from nnopt_cli import Model, Run
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


def _of_program(model: Model, data: Data, run: Run) -> Mapping[str, Tensor]:
    from nnopt_cli.data import flat_inputs, placed
    from nnopt_cli.graph import norm_statistics

    program = placed(model.program(), run.device)
    batches = data.plain.on(run.device)
    feeds = (flat_inputs(program, batch) for batch in batches if batch.size > 1)
    return {name: value.cpu() for name, value in norm_statistics(program, feeds).items()}


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
