"""Fusing again what a model's record says was fused."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnopt_cli.commands.common import Context
from nnopt_cli.commands.fusing import EnsembleOptions, asked_for, fuse, open_members
from nnopt_cli.commands.origins import members_of
from nnopt_cli.errors import UsageError
from nnopt_cli.plugin.data import DataOptions
from nnopt_cli.plugin.options import MemberOptions, ModelOptions

if TYPE_CHECKING:
    from nnopt_cli.model.model import Model
    from nnopt_cli.report.recipe_runs import StepRow

FUSION = "ensemble"  # the step that a record of a fusion begins with


def was_fused(model: Model) -> bool:
    """Whether the record of `model` begins with a fusion."""
    steps = model.provenance.steps
    return bool(steps) and isinstance(steps[0], Mapping) and steps[0].get("pass") == FUSION


def fused_again(made: Model, folder: Path | None, context: Context) -> tuple[Model, StepRow]:
    """The members of `made` fused as its record says, and what is said of that.

    The record is untrusted: code that it names is not followed, nor files other than members and data.

    Args:
        made: a model whose record begins with a fusion.
        folder: where the members are; None for beside `made` and this folder.
        context: of the command; how members are read and computed.

    Raises NnoptError: the step says what no fusion takes, or a member is missing or another one.
    """
    from nnopt_cli.recipe.steps import options_of, paths_in, placed, seed_of
    from nnopt_cli.report.recipe_runs import StepRow
    from nnopt_cli.report.settings import described

    start = time.perf_counter()
    step = made.provenance.steps[0]
    table = {key: value for key, value in step.items() if key not in ("pass", "seed", "base")}
    with placed(f"{made.path}: its record: step 1 ({FUSION})"):
        seed = seed_of(step)
        options = options_of(table, (EnsembleOptions, DataOptions), context.registry, allow_code=False)
        named = [path for each in options.values() for path in paths_in(each)]
        if named:
            raise UsageError(f"it names the file {str(named[0])!r}, which is not followed from a record")
        if len(made.provenance.inputs) < 2 + ("base" in step):
            raise UsageError("it names no members")
    paths = members_of(made, folder, context)
    base = paths.pop() if "base" in step else None
    wanted = options[EnsembleOptions].model_copy(update={"base": base})
    read = context[ModelOptions].model_dump()
    members = MemberOptions(**{**read, "arch": (read["arch"],) if read["arch"] else ()})
    again = replace(
        context,
        arguments={"model": tuple(map(str, paths))},
        options={**context.options, **options, EnsembleOptions: wanted, MemberOptions: members},
        run=replace(context.run, seed=seed or 0),
    )
    fused = fuse(asked_for(again), open_members(again), again).fused
    inputs = made.provenance.inputs  # their hashes were found to be these
    fused = replace(fused, provenance=replace(fused.provenance, inputs=inputs))
    said: dict[str, Any] = {**table, **({"base": base.name} if base else {})}
    row = StepRow(step=FUSION, settings=described(said), seconds=time.perf_counter() - start)
    return fused, row
