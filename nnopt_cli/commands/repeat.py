"""Repeating what a model's record says was done to it, and comparing the results."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nnopt_cli.commands.common import Context
from nnopt_cli.commands.origins import input_of
from nnopt_cli.commands.run import RunOptions, merged
from nnopt_cli.errors import FAILED, NnoptError, UsageError
from nnopt_cli.plugin.options import ModelOptions, OutputOptions
from nnopt_cli.recipe.recipe import Recipe

if TYPE_CHECKING:
    from nnopt_cli.model.model import Model
    from nnopt_cli.recipe.recipe import Plan
    from nnopt_cli.report.recipe_runs import StepRow
    from nnopt_cli.report.record import Record


def recipe_of(model: Model) -> Recipe:
    """What a model's record names. It is untrusted. Raises NnoptError where there is none."""
    if not model.provenance.steps:
        raise NnoptError(
            f"{model.path}: carries no record of passes, so there is nothing to repeat",
            "`nnopt run` takes a recipe, or a model that nnopt made.",
        )
    return Recipe.of_record(f"{model.path}: its record", model.provenance.steps)


def repeat(path: Path, context: Context) -> int:
    """Do again what the record of the model at `path` names, and say whether the result is identical."""
    from nnopt_cli import __version__
    from nnopt_cli.model.io import load
    from nnopt_cli.report.comparison import compare_models
    from nnopt_cli.report.recipe_runs import RecipeRun, RecipeRuns, figures_of
    from nnopt_cli.report.recipe_runs_console import render

    start = time.perf_counter()
    options, run = context[ModelOptions], context.run
    if context[RunOptions].set_:
        raise UsageError("--set is for recipes, and a model's record has no variables")
    made = load(path, key=options.key, operators=options.operators)
    done = _again(made, context)
    if made.provenance.version != __version__:
        run.note(f"It was made by nnopt {made.provenance.version}; this is {__version__}.")
    compared = compare_models(made, done.model, run)
    identical = not compared.differ
    if identical:
        verdict = f"Identical: every tensor of {path.name} was made again, bit for bit."
    else:
        verdict = (
            f"Not identical to {path.name}. With A as the file and B as its repetition: {compared.verdict}"
        )
    figures, dense, metric = figures_of(done.record, done.steps) if done.record else ({}, {}, None)
    whole = RecipeRuns(
        recipe=str(path),
        runs=[RecipeRun(variables={}, figures=figures, steps=done.steps, record=done.record)],
        metric=metric,
        dense=dense,
        identical=identical,
        verdict=verdict,
        notes=[] if done.record else list(run.notes),
        seconds=time.perf_counter() - start,
        version=__version__,
    )
    context.emit(whole.model_dump(mode="json"), lambda console: render(whole, console, run.verbose), whole)
    return 0 if identical else FAILED


@dataclass(frozen=True)
class _Done:
    """A model made again, a row for each step, and the record of the passes, where there were any."""

    model: Model
    steps: list[StepRow]
    record: Record | None


def _again(made: Model, context: Context) -> _Done:
    """Fuse, where the record begins with that, then run its passes."""
    from nnopt_cli.commands.fused_again import fused_again, was_fused

    given = context[RunOptions].model
    count = len(made.provenance.inputs)
    if not was_fused(made):
        if count > 1:
            raise NnoptError(f"{made.path}: was made of {count} models, and its record does not say how")
        only = merged(recipe_of(made).plan({}, context.registry, ()), context)
        return _passes(made, only, input_of(made, given, context), context)
    later, plan = made.provenance.steps[1:], None
    if later:  # checked before members are read
        recipe = Recipe.of_record(f"{made.path}: its record after the fusion", later)
        plan = merged(recipe.plan({}, context.registry, ()), context)
    fused, row = fused_again(made, given, context)
    if plan is not None:
        done = _passes(made, plan, fused, context)
        return _Done(done.model, [row, *done.steps], done.record)
    out = context[OutputOptions]
    if out.output is not None:
        from nnopt_cli.model.io import save

        save(fused, None if out.dry_run else out.output, run=context.run, force=out.force)
    return _Done(fused, [row], None)


def _passes(made: Model, plan: Plan, source: Path | Model, context: Context) -> _Done:
    """The passes of a record, on a file or on a model that is in none."""
    from nnopt_cli.commands.chain import Link, Order, run_chain
    from nnopt_cli.commands.records import recipe_record

    start = time.perf_counter()
    out = context[OutputOptions]
    file = source if isinstance(source, Path) else None
    whole = file is not None and file.suffix == ".pt2"
    order = Order(
        source=file,
        model=None if isinstance(source, Path) else source,
        reading=plan.reading.model_copy(update={"input": ()}) if whole else plan.reading,
        links=[Link(step.method, step.seed or 0) for step in plan.passes],
        output=out.output,
        force=out.force,
        dry_run=out.dry_run or out.output is None,
        like=made.path,
        nowhere=out.output is None,
    )
    chained = run_chain(order, context.run, context.registry)
    record, steps = recipe_record(
        chained,
        context.run,
        plan.passes,
        seconds=time.perf_counter() - start,
        dry_run=out.dry_run,
        detailed=context.report is not None,
    )
    return _Done(chained.after, steps, record)
