"""Never silently wrong: a cut program is held against the masked dense one, and a mismatch is located."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.fx import Node

from nnopt_cli.graph.cost import costs
from nnopt_cli.graph.digest import Comparison
from nnopt_cli.graph.inputs import sample_inputs
from nnopt_cli.graph.reference import Watch, run, run_masked

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from nnopt_cli.graph.coupling import Coupling
    from nnopt_cli.graph.keep import Keep

Expected = Callable[[list[Any], torch.dtype, Watch], list[Any]]
AFFORDABLE = 20e9  # MACs at batch 1 up to which float64 takes seconds
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3}  # largest difference over largest output
STEP_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-2}  # of one operator; a wrong channel gives 1


@dataclass(frozen=True)
class Check:
    """What comparing two programs gave.

    Attributes:
        difference: largest difference over largest output, over all outputs and batches.
        tolerance: what it had to stay within.
        dtype: what it was computed in.
        batches: the batch sizes that were run.
        culprit: the first operator whose result differs, if any does.
    """

    difference: float
    tolerance: float
    dtype: str
    batches: tuple[int, ...]
    culprit: str | None = None

    @property
    def passed(self) -> bool:
        """Whether the two compute the same."""
        return self.difference <= self.tolerance


def check_cut(
    dense: ExportedProgram,
    small: ExportedProgram,
    coupling: Coupling,
    keep: Keep,
    batches: Sequence[int] = (2, 3),
    seed: int = 0,
) -> Check:
    """Run `small` against `dense` with the removed channels masked out, on random inputs.

    In float64 where that takes seconds, else in float32. The outputs must agree, and every operator
    on the way to them. A result that is not a number, or one program failing where the other runs,
    is a mismatch.
    """

    def masked(inputs: list[Any], dtype: torch.dtype, watch: Watch) -> list[Any]:
        return run_masked(dense, coupling, keep, inputs, dtype, watch)

    return held_against(masked, dense, small, batches, seed)


def held_against(
    expected: Expected,
    dense: ExportedProgram,
    other: ExportedProgram,
    batches: Sequence[int] = (2, 3),
    seed: int = 0,
) -> Check:
    """Run `other` against what `expected` makes of random inputs for `dense`.

    Args:
        expected: gives the outputs, computed in a type, and shows a watch every operator's result.
        dense: the program that it stands for, whose size decides on the type.
        other: what is held against it; its operators have the same names.
        batches: sizes of the leading dynamic dimension.
        seed: of the inputs.
    """
    dtype = torch.float64 if costs(dense).macs <= AFFORDABLE else torch.float32
    worst, culprit = 0.0, None
    for batch in batches:
        inputs = sample_inputs(dense, batch, seed, dtype)
        steps = Comparison(STEP_TOLERANCE[dtype])
        with torch.no_grad():
            want = expected(inputs, dtype, steps.expect)
            try:
                got = run(other, inputs, dtype, steps.meet)
            except (RuntimeError, IndexError, ValueError, TypeError) as error:
                last = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
                return Check(float("inf"), TOLERANCE[dtype], str(dtype)[6:], tuple(batches), last)
        difference = distance(want, got)
        if steps.culprit is not None:
            culprit = culprit or describe(steps.culprit)
            difference = max(difference, steps.difference)
        worst = max(worst, difference)
    return Check(worst, TOLERANCE[dtype], str(dtype).removeprefix("torch."), tuple(batches), culprit)


def distance(want: Sequence[Any], got: Sequence[Any]) -> float:
    """Largest difference over largest finite output; infinite where shapes differ or one is not a number.

    Infinities that agree are no difference: language models mask logits with them.
    """
    worst = 0.0
    if len(want) != len(got):
        return float("inf")
    for a, b in zip(want, got, strict=True):
        if not isinstance(a, Tensor):
            worst = worst if a == b else float("inf")
        elif a.shape != b.shape:
            return float("inf")
        elif a.numel():
            a, b = a.detach().to(torch.float64), b.detach().to(torch.float64)
            scale = float(a[a.isfinite()].abs().amax()) if bool(a.isfinite().any()) else 1.0
            gap = float(torch.where(a == b, 0.0, a - b).abs().max()) / (scale or 1.0)
            worst = max(worst, gap if gap == gap and gap != float("inf") else float("inf"))
    return worst


def describe(node: Node) -> str:
    """A node as a person would look for it: its name, operator, and the module that it comes from."""
    from nnopt_cli.graph.rules.base import operator_name

    stack = list((node.meta.get("nn_module_stack") or {}).values())
    where = f" in {stack[-1][0]}" if stack and stack[-1][0] else ""
    return f"{node.name} ({operator_name(node)}{where})"
