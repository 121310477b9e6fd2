"""What criteria with data look at: gradients of the loss, their squares, and activations."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.fx import Interpreter, Node
from torch.utils import _pytree as pytree

from nnopt_cli.data.evaluation import aligned
from nnopt_cli.data.outputs import main_output
from nnopt_cli.data.place import placed
from nnopt_cli.errors import NnoptError
from nnopt_cli.graph import run as run_program

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from nnopt_cli.data.batching import Batch, Batches
    from nnopt_cli.data.table import Array
    from nnopt_cli.graph import Coupling
    from nnopt_cli.run import Run

Gradients = dict[str, Tensor]


def gradients(
    program: ExportedProgram,
    batches: Batches,
    loss: Callable[[Tensor, Tensor], Tensor],
    run: Run,
) -> tuple[Gradients, Gradients]:
    """The mean over batches of the gradient of the batch's mean loss, and the mean of its square.

    The program computes as it is (norms with their recorded statistics, dropout off). By parameter name;
    each name of a tied parameter gets the share of its own use. On `run.device`, given on the CPU.

    Raises NnoptError: there is no batch, or the loss is not finite.
    """
    task = batches.assembly.task
    if task is None:
        raise ValueError("the task of these batches is not known: open them with DataOptions")
    names = _parameters(program)
    program = placed(program, run.device)
    total = {name: torch.zeros_like(program.state_dict[name], dtype=torch.float32) for name in names}
    squares = {name: torch.zeros_like(value) for name, value in total.items()}
    count = 0
    for batch in batches.on(run.device):
        leaves = {name: program.state_dict[name].detach().requires_grad_(True) for name in names}
        outputs, target = aligned(main_output(_compute(program, batch, leaves)), batch.target, task)
        value = loss(outputs, target)
        if not torch.isfinite(value):
            raise NnoptError(
                f"the loss is {float(value.detach())} on a batch of the data", "Check --normalize and --y."
            )
        found = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
        for name, slope in zip(leaves, found, strict=True):
            if slope is not None:
                slope = slope.float()
                total[name] += slope
                squares[name] += slope.square()
        count += 1
    if not count:
        raise NnoptError("there is no data to take gradients on")
    means = {name: value.div_(count).cpu() for name, value in total.items()}
    return means, {name: value.div_(count).cpu() for name, value in squares.items()}


def activations(program: ExportedProgram, coupling: Coupling, batches: Batches, run: Run) -> Array:
    """For every class of the coupling the mean |activation|: an array of `coupling.labels.count` numbers.

    Of each operator's result along whose dimension the class lies: the mean over samples, positions and
    the class's indices; then the mean over these results. Classes that no result carries get 0.
    """
    values = {node.name: value for node, value in coupling.values.items()}  # a copy has nodes of its own
    sums: dict[tuple[str, int], Tensor] = {}
    sizes: dict[tuple[str, int], int] = {}

    def watch(node: Node, result: Any) -> None:
        value = values.get(node.name)
        if not isinstance(result, Tensor) or not result.is_floating_point() or not value:
            return
        for axis, dim in enumerate(value):
            if isinstance(dim, np.ndarray) and coupling.roots[dim].any():
                others = [other for other in range(result.dim()) if other != axis]
                found = result.detach().abs().double()
                found = found.sum(others) if others else found
                key = (node.name, axis)
                sums[key] = sums[key] + found if key in sums else found
                sizes[key] = sizes.get(key, 0) + result.numel() // max(1, result.shape[axis])

    program = placed(program, run.device)
    seen = 0
    with torch.no_grad():
        for batch in batches.on(run.device):
            run_program(program, flat_inputs(program, batch), watch=watch)
            seen += 1
    if not seen:
        raise NnoptError("there is no data to take activations on")
    total, times = np.zeros(coupling.labels.count), np.zeros(coupling.labels.count)
    for (name, axis), found in sums.items():
        classes = coupling.roots[values[name][axis]]
        means = (found / sizes[name, axis]).cpu().numpy()
        weight = np.bincount(classes, minlength=len(total))
        here = weight > 0
        total[here] += np.bincount(classes, means, minlength=len(total))[here] / weight[here]
        times[here] += 1
    return total / np.maximum(times, 1)


def _parameters(program: ExportedProgram) -> list[str]:
    names = program.graph_signature.parameters
    return [name for name in names if program.state_dict[name].is_floating_point()]


def _compute(program: ExportedProgram, batch: Batch, leaves: Gradients) -> Any:
    """The program's outputs with `leaves` for its parameters."""
    given = iter(flat_inputs(program, batch))
    arguments = []
    for spec in program.graph_signature.input_specs:
        if spec.kind.name == "USER_INPUT":
            arguments.append(next(given))
            continue
        name = str(spec.target)
        if name in leaves:
            arguments.append(leaves[name])
        else:
            value = program.state_dict.get(name, program.constants.get(name))
            arguments.append(value.detach().clone() if isinstance(value, Tensor) else value)
    outputs = Interpreter(program.graph_module).run(*arguments)
    kinds = [spec.kind.name for spec in program.graph_signature.output_specs]
    flat = [each for each, kind in zip(outputs, kinds, strict=True) if kind == "USER_OUTPUT"]
    return pytree.tree_unflatten(flat, program.call_spec.out_spec)


def flat_inputs(program: ExportedProgram, batch: Batch) -> list[Any]:
    """The batch's inputs in the order of the program's placeholders."""
    order: list[str] = list(_named(program) or batch.kwargs)
    return [*batch.args, *(batch.kwargs[name] for name in order)]


def _named(program: ExportedProgram) -> Any:
    spec: Any = program.call_spec.in_spec
    children = spec.children() if callable(getattr(spec, "children", None)) else spec.children_specs
    return children[1].context
