"""Repeating what a model's record says was done to it, and comparing the results."""

from __future__ import annotations

import time
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from nnopt_cli.commands.common import Context
from nnopt_cli.errors import FAILED, NnoptError, UsageError
from nnopt_cli.plugin.options import ModelOptions, OutputOptions

if TYPE_CHECKING:
    from nnopt_cli.model.model import Model
    from nnopt_cli.recipe.recipe import Recipe


def recipe_of(model: Model) -> Recipe:
    """What a model's record names. It is untrusted. Raises NnoptError where there is none."""
    from nnopt_cli.recipe.recipe import Recipe

    if not model.provenance.steps:
        raise NnoptError(
            f"{model.path}: carries no record of passes, so there is nothing to repeat",
            "`nnopt run` takes a recipe, or a model that nnopt made.",
        )
    return Recipe.of_record(f"{model.path}: its record", model.provenance.steps)


def repeat(path: Path, context: Context) -> int:
    """Do again what the record of the model at `path` names, and say whether the result is identical."""
    from nnopt_cli import __version__
    from nnopt_cli.commands.chain import Link, Order, run_chain
    from nnopt_cli.commands.records import recipe_record
    from nnopt_cli.commands.run import RunOptions, merged
    from nnopt_cli.model.io import load
    from nnopt_cli.report.comparison import compare_models
    from nnopt_cli.report.recipe_runs import RecipeRun, RecipeRuns, figures_of
    from nnopt_cli.report.recipe_runs_console import render

    start = time.perf_counter()
    wanted, out, run = context[RunOptions], context[OutputOptions], context.run
    if wanted.set_:
        raise UsageError("--set is for recipes, and a model's record has no variables")
    made = load(path, key=context[ModelOptions].key, operators=context[ModelOptions].operators)
    plan = merged(recipe_of(made).plan({}, context.registry, ()), context)
    source = _input_of(made, wanted.model, context)
    order = Order(
        source=source,
        reading=plan.reading.model_copy(update={"input": ()}) if source.suffix == ".pt2" else plan.reading,
        links=[Link(step.method, step.seed or 0) for step in plan.passes],
        output=out.output,
        force=out.force,
        dry_run=out.dry_run or out.output is None,
        like=path,
        nowhere=out.output is None,
    )
    chained = run_chain(order, run, context.registry)
    if made.provenance.version != __version__:
        run.note(f"It was made by nnopt {made.provenance.version}; this is {__version__}.")
    compared = compare_models(made, chained.after, run)
    identical = not compared.differ
    record, steps = recipe_record(
        chained,
        run,
        plan.passes,
        seconds=time.perf_counter() - start,
        dry_run=out.dry_run,
        detailed=context.report is not None,
    )
    if identical:
        verdict = f"Identical: every tensor of {path.name} was made again, bit for bit."
    else:
        verdict = (
            f"Not identical to {path.name}. With A as the file and B as its repetition: {compared.verdict}"
        )
    figures, dense, metric = figures_of(record, steps)
    whole = RecipeRuns(
        recipe=str(path),
        runs=[RecipeRun(variables={}, figures=figures, steps=steps, record=record)],
        metric=metric,
        dense=dense,
        identical=identical,
        verdict=verdict,
        seconds=time.perf_counter() - start,
        version=__version__,
    )
    context.emit(whole.model_dump(mode="json"), lambda console: render(whole, console, run.verbose), whole)
    return 0 if identical else FAILED


def _input_of(made: Model, given: Path | None, context: Context) -> Path:
    """The input that the passes began with: the one given, or the named one, looked for beside the model.

    A name in a record never leads elsewhere. A program with the same weights goes before bare weights.

    Raises NnoptError: it is not there, or holds other weights than the record says.
    """
    from nnopt_cli.model.hashing import input_hash
    from nnopt_cli.model.io import load

    inputs = made.provenance.inputs
    if len(inputs) > 1:
        raise NnoptError(f"{made.path}: was made of {len(inputs)} models, and only passes are repeated")
    first = inputs[0] if inputs and isinstance(inputs[0], dict) else {}
    said = first.get("path")
    name = PurePath(said).name if isinstance(said, str) else ""
    if given is not None:
        found = [given]
    else:
        beside = made.path.parent / (name or "?")
        found = [path for path in (beside.with_suffix(made.path.suffix), beside) if path.exists()]
        found = [path for path in found if name and not path.samefile(made.path)]
    if not found:
        raise NnoptError(
            f"{made.path}: its input {name or '(not named)'} is not beside it",
            "Say where it is: --model PATH.",
        )
    for path in found:
        model = load(path, key=context[ModelOptions].key, operators=context[ModelOptions].operators)
        if input_hash(model) == first.get("sha256") and not _begun(model, made):
            return path
    if _begun(model, made):
        raise NnoptError(
            f"{path}: {len(model.provenance.steps)} of the passes are in it already",
            "Give the model that the passes began with: --model PATH.",
        )
    raise NnoptError(
        f"{path}: holds other weights than the input that {made.path.name} was made from",
        "Give the right one with --model PATH.",
    )


def _begun(model: Model, made: Model) -> bool:
    """Whether some of the passes that made `made` were done to `model` already."""
    steps = model.provenance.steps
    return bool(steps) and made.provenance.steps[: len(steps)] == steps
