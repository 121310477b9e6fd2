"""`nnopt run`: what a recipe says, or again what a model's record says was done to it."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnopt_cli.commands.common import PASSES, Arg, CommandSpec, Context
from nnopt_cli.errors import UsageError
from nnopt_cli.plugin.component import option
from nnopt_cli.plugin.options import (
    ComputeOptions,
    ModelOptions,
    Options,
    OutputOptions,
    ReportOptions,
)

if TYPE_CHECKING:
    from rich.console import Console

    from nnopt_cli.commands.followers import Followed
    from nnopt_cli.recipe.recipe import Plan, Recipe
    from nnopt_cli.recipe.steps import CommandStep
    from nnopt_cli.report.recipe_runs import RecipeRun


class RunOptions(Options):
    """What is run, on what."""

    model: Path | None = option(
        None,
        help="The model to begin with, in place of the recipe's. To repeat a fusion: the members' folder.",
        metavar="PATH",
    )
    set_: tuple[str, ...] = option(
        (),
        help="A variable of the recipe. A list, 0.5,0.7 or [0.5, 0.7], makes one run each and a table.",
        metavar="NAME=VALUE",
    )
    work: Path | None = option(
        None,
        help="Keep the model after every step in this folder, and begin behind the last one that is there. "
        "Without it only steps of over ten seconds are kept, beside the output, until the run is done.",
        metavar="FOLDER",
    )


def body(context: Context) -> int:
    """Run a recipe, or repeat a model's record."""
    from nnopt_cli.recipe.syntax import is_recipe

    path = context.path("recipe")
    if is_recipe(path):
        return _run_recipe(path, context)
    from nnopt_cli.commands.repeat import repeat

    return repeat(path, context)


def _run_recipe(path: Path, context: Context) -> int:
    from nnopt_cli import __version__
    from nnopt_cli.commands.followers import FOLLOWERS
    from nnopt_cli.commands.one_run import one_run, said_of
    from nnopt_cli.recipe.recipe import Recipe
    from nnopt_cli.recipe.variables import parse_settings
    from nnopt_cli.report.recipe_runs import RecipeRuns, cost_in, figures_of
    from nnopt_cli.report.recipe_runs_console import render

    start = time.perf_counter()
    recipe = Recipe.read(path)
    values = recipe.runs(parse_settings(context[RunOptions].set_))
    plans = [merged(recipe.plan(each, context.registry, FOLLOWERS), context) for each in values]
    plans = _placed(plans, recipe, context)
    done: list[tuple[RecipeRun, list[Followed], int]] = []
    for number, plan in enumerate(plans):
        if len(plans) > 1 and context.run.verbose >= 0:
            context.run.console.print(f"run {number + 1} of {len(plans)}: {said_of(plan)}", markup=False)
        done.append(one_run(plan, context, alone=len(plans) == 1))
    runs = [run for run, _, _ in done]
    first = next((run for run in runs if run.record is not None), None)
    dense: dict[str, float | int | None] = {}
    metric: str | None = None
    if first is not None and first.record is not None:
        _, dense, metric = figures_of(first.record, first.steps)
    record = RecipeRuns(
        recipe=str(path),
        runs=runs,
        metric=metric,
        cost=cost_in(runs),
        dense=dense,
        notes=list(context.run.notes) if len(plans) > 1 else [],
        seconds=time.perf_counter() - start,
        version=__version__,
    )

    parts = [each.show for each in done[0][1]] if len(runs) == 1 else []
    if len(runs) > 1 or runs[0].record is not None:
        place = len(plans[0].first) if parts else 0
        parts.insert(place, lambda console: render(record, console, context.run.verbose))

    def show(console: Console) -> None:
        for number, part in enumerate(parts):
            if number:
                console.print()
            part(console)

    context.emit(record.model_dump(mode="json"), show, record)
    return max(code for _, _, code in done)


def merged(plan: Plan, context: Context) -> Plan:
    """The plan with what was typed in place of what the recipe says."""
    wanted, out = context[RunOptions], context[OutputOptions]
    reading, compute = context[ModelOptions], context[ComputeOptions]
    return replace(
        plan,
        model=wanted.model or plan.model,
        output=out.output or plan.output,
        reading=plan.reading.model_copy(update=_typed(reading)),
        compute=plan.compute.model_copy(update=_typed(compute)),
    )


def _typed(options: Options) -> dict[str, Any]:
    return {name: getattr(options, name) for name in options.model_fields_set}


def _placed(plans: list[Plan], recipe: Recipe, context: Context) -> list[Plan]:
    """Check that there is a model, and give each run of a sweep outputs of its own."""
    for plan in plans:
        if plan.model is None and plan.reading.arch is None:
            raise UsageError(
                f"{recipe.origin}: it names no model", "Give one with --model, or the key model."
            )
        if not (plan.first or plan.passes or plan.last):
            raise UsageError(f"{recipe.origin}: it has no steps")
    if len(plans) == 1:
        return plans
    named = _own(plans)
    outputs = [plan.output for plan in named if plan.output]
    if len(set(outputs)) < len(outputs):
        raise UsageError(
            f"{recipe.origin}: two runs of the sweep would write the same output", "Put ${NAME} into output."
        )
    return named


def _own(plans: list[Plan]) -> list[Plan]:
    """The plans with the values of their variables in the names of outputs that several of them have."""
    from nnopt_cli.commands.chain import default_output
    from nnopt_cli.commands.followers import output_of, put_out
    from nnopt_cli.commands.one_run import tag_of

    def shared(places: list[Path | None]) -> bool:
        return len(set(places)) < len(places)

    def named(steps: tuple[CommandStep, ...], which: str, tag: str) -> tuple[CommandStep, ...]:
        others = [getattr(plan, which) for plan in plans]
        clash = [shared([output_of(each[n]) for each in others]) for n in range(len(steps))]
        return tuple(
            put_out(step, default_output(place, tag)) if (place := output_of(step)) and clash[n] else step
            for n, step in enumerate(steps)
        )

    clash = shared([plan.output for plan in plans])
    out = []
    for plan in plans:
        tag = tag_of(plan, plans)
        place = default_output(plan.output, tag) if plan.output and clash else plan.output
        first, last = named(plan.first, "first", tag), named(plan.last, "last", tag)
        out.append(replace(plan, output=place, first=first, last=last))
    return out


COMMAND = CommandSpec(
    name="run",
    help="""Run a recipe: several passes with one load and one save, then commands on the result.

    A recipe is a YAML, TOML or JSON file; its steps have the same keys as the flags. --save-recipe writes one
    of any pass. Given a finished model, what its record names is done again to its input, which is looked
    for beside it, and the two results are compared; code that a record names is never followed.

    Examples:
      nnopt run recipe.yaml
      nnopt run recipe.yaml --set sparsity=0.5,0.7,0.9 --report sweep.html
      nnopt run model.pruned.pt""",
    panel=PASSES,
    arguments=(Arg("recipe", "A recipe (.yaml, .toml or .json), or a model that nnopt made."),),
    options=(RunOptions, ModelOptions, OutputOptions, ReportOptions, ComputeOptions),
    body=body,
)
