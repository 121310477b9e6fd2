"""Whole residual branches: the least important go, `x + f(x)` becomes `x`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nnopt_cli import NnoptError, Where, match

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from nnopt_cli import Model, Run
    from nnopt_cli.graph import Block, Check
    from nnopt_plugins.prune.budget import Budget
    from nnopt_plugins.prune.passes import Prune


def prune_layers(
    method: Prune, budget: Budget, program: ExportedProgram, model: Model, run: Run
) -> ExportedProgram:
    """The program without its least important residual branches.

    Raises NnoptError where there is none, or the budget cannot be met.
    """
    from nnopt_cli.graph import blocks, without_blocks
    from nnopt_plugins.prune.budget import size
    from nnopt_plugins.prune.structured import cost_facts

    found = _outermost([block for block in blocks(program) if _allowed(method, model, block)])
    if not found:
        raise NnoptError(
            "there is nothing to prune: the graph has no residual branch `x + f(x)` that can go",
            "--granularity channel prunes inside layers.",
        )
    order = np.argsort([_score(method, program, block, run.seed) for block in found], kind="stable")
    ranked = [found[i] for i in order]

    def gone(share: float) -> list[Block]:
        return ranked[: round(share * len(ranked))]

    def without(share: float) -> ExportedProgram | None:
        return without_blocks(program, gone(share)) if gone(share) else None

    def cost(share: float) -> float:
        return size(without(share) or program, budget.kind)

    share = budget.begun(program).share(without, cost, "without any of the residual branches")
    small, removed = without(share) or program, gone(share)
    check = _check(program, small, removed, run.seed)
    run.facts["units"] = [len(found), len(found) - len(removed)]
    run.facts["shrunk"] = {
        **cost_facts(program, small),
        "what": "layers",
        "difference": check.difference,
        "dtype": check.dtype,
    }
    run.note(f"Removed {len(removed)} of {len(found)} residual branches: {_named(removed)}.")
    return small


def _allowed(method: Prune, model: Model, block: Block) -> bool:
    included = {name for glob in method.include for name in match(model.weights, glob)}
    excluded = {name for glob in method.exclude for name in match(model.weights, glob)}
    inside = set(block.parameters)
    return not inside & excluded and (not method.include or bool(inside & included))


def _outermost(found: list[Block]) -> list[Block]:
    """Branches that lie in no other one, so that each can go on its own."""
    return [b for b in found if not any(b is not o and set(b.nodes) < set(o.nodes) for o in found)]


def _score(method: Prune, program: ExportedProgram, block: Block, seed: int) -> float:
    """Mean score of the branch's weights of two or more dimensions."""
    total, count = 0.0, 0
    for index, name in enumerate(block.parameters):
        tensor = program.state_dict.get(name)
        if tensor is not None and tensor.is_floating_point() and tensor.dim() > 1:
            values = tensor.detach().double().reshape(-1).numpy()
            total += float(np.sum(method.criterion.score(values, Where(name, index, 0, seed))))
            count += tensor.numel()
    return total / count if count else 0.0


def _check(program: ExportedProgram, small: ExportedProgram, gone: list[Block], seed: int) -> Check:
    """Against the dense program with those branches' results set to zero."""
    from nnopt_cli.graph import Check, distance, run_zeroed, sample_inputs
    from nnopt_cli.graph import run as run_program
    from nnopt_plugins.prune.structured import require_equal

    worst = 0.0
    for batch in (2, 3):
        inputs = sample_inputs(program, batch, seed)
        want = run_zeroed(program, [block.branch for block in gone], inputs)
        worst = max(worst, distance(want, run_program(small, inputs)))
    check = Check(worst, 1e-4, "float32", (2, 3))
    require_equal(check, "layers")
    return check


def _named(gone: list[Block]) -> str:
    names = [block.parameters[0].rpartition(".")[0] or block.parameters[0] for block in gone]
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "") or "none"
