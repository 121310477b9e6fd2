"""Whether a module and a program compute the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from nnopt_cli.graph.check import distance
from nnopt_cli.graph.inputs import sample_inputs
from nnopt_cli.graph.reference import run
from nnopt_cli.graph.signature import input_spec

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from nnopt_cli.model.inputs import InputSpec

BATCHES = (2, 3)  # sizes at which two computations are compared; one where the batch is fixed
_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
_COARSE = 3e-2


def difference(program: ExportedProgram, module: nn.Module, inputs: InputSpec | None = None) -> float:
    """Largest difference over largest output between the two, on random inputs at every size of `BATCHES`.

    Infinite where shapes differ or a value is not finite. Whatever the module raises goes through.

    Args:
        program: one side, run on its own weights.
        module: the other, in evaluation mode.
        inputs: what both are fed; by default what fits the program.
    """
    spec = input_spec(program)
    worst = 0.0
    for batch in BATCHES if spec.batch else BATCHES[:1]:
        if inputs is None:
            flat = sample_inputs(program, batch)
            args, kwargs = pytree.tree_unflatten(flat, program.call_spec.in_spec)
        else:
            args, kwargs = inputs.example(batch, dtype=_floating(spec))
            flat = _flat(program, args, kwargs)
        with torch.no_grad():
            got = module(*args, **kwargs)
            want = run(program, flat)
        worst = max(worst, distance(_tensors(want), _tensors(got)))
    return worst


def tolerance(program: ExportedProgram) -> float:
    """The largest difference that rounding explains, by the program's floating types."""
    kinds = {t.dtype for t in program.state_dict.values() if t.is_floating_point()} or {torch.float32}
    return max(_TOLERANCE.get(kind, _COARSE) for kind in kinds)


def _floating(spec: InputSpec) -> str:
    found = (each.dtype for each in spec.inputs if getattr(torch, each.dtype).is_floating_point)
    return next(found, "float32")


def _flat(program: ExportedProgram, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """In the order of the program's placeholders, which follow the order of its keywords."""
    order: list[str] = list(_children(program.call_spec.in_spec)[1].context or kwargs)
    return [*args, *(kwargs[name] for name in order)]


def _children(spec: Any) -> list[Any]:
    return list(spec.children() if callable(getattr(spec, "children", None)) else spec.children_specs)


def _tensors(outputs: Any) -> list[Tensor]:
    """The tensors of an output of any form, in order."""
    if hasattr(outputs, "to_tuple"):  # of a library that gives classes of its own
        outputs = outputs.to_tuple()
    return [leaf for leaf in pytree.tree_leaves(outputs) if isinstance(leaf, Tensor)]
