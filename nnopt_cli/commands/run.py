"""`nnopt run`: what a recipe says, or again what a model's record says was done to it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnopt_cli.commands.common import PASSES, Arg, CommandSpec, Context, make_run
from nnopt_cli.errors import GATE_MISSED, NnoptError, UsageError
from nnopt_cli.plugin.component import option
from nnopt_cli.plugin.options import (
    CommonOptions,
    ComputeOptions,
    ModelOptions,
    Options,
    OutputOptions,
    ReportOptions,
)

if TYPE_CHECKING:
    from nnopt_cli.commands.followers import Followed
    from nnopt_cli.recipe.recipe import Plan, Recipe
    from nnopt_cli.report.recipe_runs import RecipeRun, StepRow
    from nnopt_cli.report.record import Record
    from nnopt_cli.run import Run


class RunOptions(Options):
    """What is run, on what."""

    model: Path | None = option(
        None,
        help="The model to begin with, in place of the recipe's; to repeat a fusion, the folder of its members.",
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
            context.run.console.print(f"run {number + 1} of {len(plans)}: {_said(plan)}", markup=False)
        done.append(_one(plan, context, alone=len(plans) == 1))
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

    def show(console: Any) -> None:
        if len(runs) > 1 or runs[0].record is not None:
            render(record, console, context.run.verbose)
        if len(runs) == 1:
            for number, each in enumerate(done[0][1]):
                if number or runs[0].record is not None:
                    console.print()
                each.show(console)

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
    """Check that there is a model, and give each run of a sweep an output of its own."""
    for plan in plans:
        if plan.model is None and plan.reading.arch is None:
            raise UsageError(
                f"{recipe.origin}: it names no model", "Give one with --model, or the key model."
            )
        if not (plan.passes or plan.last):
            raise UsageError(f"{recipe.origin}: it has no steps")
    outputs = [plan.output for plan in plans]
    if len(plans) == 1 or len(set(outputs)) == len(plans):
        return plans
    named = [_named(plan, plans) for plan in plans]
    if len({plan.output for plan in named if plan.output}) < sum(plan.output is not None for plan in named):
        raise UsageError(
            f"{recipe.origin}: two runs of the sweep would write the same output", "Put ${NAME} into output."
        )
    return named


def _named(plan: Plan, plans: list[Plan]) -> Plan:
    from nnopt_cli.commands.chain import default_output

    return (
        plan if plan.output is None else replace(plan, output=default_output(plan.output, _tag(plan, plans)))
    )


def _tag(plan: Plan, plans: list[Plan]) -> str:
    """The values of a run that differ between runs, as a word of a file's name."""
    import re

    from nnopt_cli.recipe.variables import as_text

    varied = [n for n in plan.variables if len({repr(each.variables.get(n)) for each in plans}) > 1]
    words = (f"{name}-{as_text(plan.variables[name])}" for name in varied)
    return ".".join(re.sub(r"[^\w.=+-]+", "_", word) for word in words)


def _one(plan: Plan, context: Context, *, alone: bool) -> tuple[RecipeRun, list[Followed], int]:
    """One run; in a sweep a failure is a row of the table, and the other runs go on."""
    from nnopt_cli.report.recipe_runs import RecipeRun

    try:
        return _whole(plan, context, alone=alone)
    except NnoptError as error:
        if alone:
            raise
        context.run.note(f"{_said(plan)}: {error.message}")
        run = RecipeRun(
            variables=dict(plan.variables), figures={}, steps=[], record=None, error=error.message
        )
        return run, [], error.exit_code


def _whole(plan: Plan, context: Context, *, alone: bool) -> tuple[RecipeRun, list[Followed], int]:
    from nnopt_cli.commands.followers import MAKERS, follow
    from nnopt_cli.report.recipe_runs import RecipeRun, StepRow, figures_of

    run = make_run({CommonOptions: context[CommonOptions], ComputeOptions: plan.compute}, context.run.console)
    run.registry = context.registry
    record: Record | None = None
    steps: list[StepRow] = []
    code = 0
    if plan.passes:
        record, steps = pass_part(plan, context, run, tag="" if alone or plan.output else _short(plan))
        code = GATE_MISSED if run.gate_missed else 0
    model = plan.model if record is None else Path(record.output) if record.output else None
    followed: list[Followed] = []
    for step in plan.last:
        if model is None:
            context.run.note(f"{step.name} was left out: with --dry-run there is no file to work on.")
            continue
        found = follow(step, model, plan, context)
        followed.append(found)
        code = max(code, found.code)
        model = found.output if found.output and found.name in MAKERS else model
        settings = [f"{key} {value}" for key, value in step.table.items() if key != "command"]
        steps.append(StepRow(step=step.name, settings=settings, seconds=found.seconds, result=found.document))
    figures: Mapping[str, Any] = figures_of(record, steps)[0] if record is not None else {}
    done = RecipeRun(variables=dict(plan.variables), figures=dict(figures), steps=steps, record=record)
    return done, followed, code


def pass_part(plan: Plan, context: Context, run: Run, *, tag: str = "") -> tuple[Record, list[StepRow]]:
    """The passes of a plan, their record, and a row for each."""
    from nnopt_cli.commands.chain import Link, Order, default_output, run_chain
    from nnopt_cli.commands.records import recipe_record
    from nnopt_cli.commands.work import Workshop
    from nnopt_cli.report.build import SHRUNK

    start = time.perf_counter()
    out, wanted = context[OutputOptions], context[RunOptions]
    order = Order(
        source=plan.model,
        reading=plan.reading,
        links=[Link(s.method, plan.compute.seed if s.seed is None else s.seed) for s in plan.passes],
        output=plan.output,
        force=out.force,
        dry_run=out.dry_run,
        tag=tag,
    )
    work = None
    if wanted.work is not None:
        work = Workshop(wanted.work, run, context.registry, kept=True)
    elif not out.dry_run and plan.model is not None:
        place = plan.output or default_output(plan.model, order.words)
        work = Workshop(place.with_name(f".{place.name}.work"), run, context.registry, kept=False)
    chained = run_chain(order, run, context.registry, work)
    record, rows = recipe_record(
        chained,
        run,
        plan.passes,
        seconds=time.perf_counter() - start,
        dry_run=out.dry_run,
        detailed=context.report is not None,
    )
    if work:
        work.finished()
    dated = _dated(record, [(step.link.method.name, SHRUNK in step.facts) for step in chained.steps])
    return dated, rows


def _dated(record: Record, steps: list[tuple[str, bool]]) -> Record:
    """Say of a metric that a pass measured where passes that came later changed the model again."""
    from nnopt_cli.report.recipe_runs import BEFORE

    last = max((n for n, (_, shrank) in enumerate(steps) if shrank), default=len(steps) - 1)
    if record.shrunk is None or record.shrunk.metric is None or last == len(steps) - 1:
        return record
    name = f"{record.shrunk.metric_name}{BEFORE}{steps[last + 1][0]}"
    return record.model_copy(update={"shrunk": record.shrunk.model_copy(update={"metric_name": name})})


def _short(plan: Plan) -> str:
    return _tag(plan, [plan, replace(plan, variables={})])


def _said(plan: Plan) -> str:
    from nnopt_cli.report.recipe_runs_console import said

    return ", ".join(f"{name} {said(value)}" for name, value in plan.variables.items())


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
