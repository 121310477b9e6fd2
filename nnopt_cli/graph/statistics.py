"""Batch-norm statistics of a program, measured anew on data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.fx import Interpreter, Node

from nnopt_cli.graph.rules.base import operator_name

if TYPE_CHECKING:
    from torch.export import ExportedProgram

NORMS = {  # operator -> where weight, bias, running mean, running variance, and epsilon stand
    "batch_norm": (1, 2, 3, 4, 7),
    "_native_batch_norm_legit_no_training": (1, 2, 3, 4, 6),
}


def norm_statistics(program: ExportedProgram, feeds: Iterable[Sequence[Any]]) -> dict[str, Tensor]:
    """The mean over batches of every batch norm's input mean and (unbiased) variance, by the buffers' names.

    Each norm sees what the ones before it make with the statistics of the batch itself, as in training
    (Ioffe and Szegedy 2015, section 3.1; the averages are those of `momentum=None` in PyTorch). Norms
    inside of regions that switch gradients or types are left out.

    Args:
        program: it is not changed; inputs and tensors are on one device.
        feeds: batches of its inputs, flat, of two samples or more.
    """
    return averaged(program, feeds, lambda: BatchStatistics(program))


def averaged(
    program: ExportedProgram, feeds: Iterable[Sequence[Any]], start: Callable[[], BatchStatistics]
) -> dict[str, Tensor]:
    """The mean over batches of what an interpreter finds; each batch gets one of its own from `start`."""
    found: dict[str, Tensor] = {}
    count = 0
    for feed in feeds:
        given = iter(feed)
        arguments = [
            next(given) if spec.kind.name == "USER_INPUT" else _tensor(program, str(spec.target))
            for spec in program.graph_signature.input_specs
        ]
        measure = start()
        with torch.no_grad():
            measure.run(*arguments)
        count += 1
        for name, value in measure.found.items():
            found[name] = found[name] + value if name in found else value
    return {name: value / count for name, value in found.items()}


def tensor_names(program: ExportedProgram) -> dict[str, str]:
    """The name of every weight, buffer and constant of a program, by that of its node."""
    return {spec.arg.name: str(spec.target) for spec in program.graph_signature.input_specs if spec.target}


def _tensor(program: ExportedProgram, name: str) -> Any:
    value = program.state_dict.get(name, program.constants.get(name))
    return value.detach().clone() if isinstance(value, Tensor) else value  # graphs may write to them


class BatchStatistics(Interpreter):
    """Runs a graph with the batch's own statistics in its batch norms; as it is where not `anew`.

    Attributes:
        found: float64 means and variances, by the names of the buffers that they are for.
    """

    def __init__(self, program: ExportedProgram, anew: bool = True) -> None:
        super().__init__(program.graph_module, garbage_collect_values=True)
        self._targets = tensor_names(program)
        self._anew = anew
        self.found: dict[str, Tensor] = {}

    def run_node(self, n: Node) -> Any:
        places = NORMS.get(operator_name(n)) if n.op == "call_function" else None
        if places is None or not self._anew:
            return super().run_node(n)
        args, _ = self.fetch_args_kwargs_from_env(n)
        weight, bias, mean_at, var_at, eps_at = places
        buffers = [n.args[at] for at in (mean_at, var_at)]
        names = [self._targets.get(each.name, "") if isinstance(each, Node) else "" for each in buffers]
        x = args[0]
        if not all(names) or x.numel() // x.shape[1] < 2:
            return super().run_node(n)
        wide = x.double() if x.dtype == torch.float64 else x.float()
        axes = [axis for axis in range(x.dim()) if axis != 1]
        variance, mean = torch.var_mean(wide, axes, correction=1)
        self.found.update({names[0]: mean.double(), names[1]: variance.double()})
        out = torch.nn.functional.batch_norm(x, None, None, args[weight], args[bias], True, 0.0, args[eps_at])
        return out if operator_name(n) == "batch_norm" else (out, mean, variance.rsqrt())
