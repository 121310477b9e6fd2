"""One run of a recipe: what writes its model, the passes, then the commands on the result."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from nnopt_cli.commands.chain import Link, Order, check_output, default_output, run_chain
from nnopt_cli.commands.common import Context, make_run
from nnopt_cli.commands.followers import Followed, follow, output_of, page_of, remembered
from nnopt_cli.commands.journal import Journal
from nnopt_cli.commands.records import recipe_record
from nnopt_cli.commands.run import RunOptions
from nnopt_cli.commands.saving import check_report
from nnopt_cli.commands.work import LONG, Workshop
from nnopt_cli.errors import GATE_MISSED, NnoptError
from nnopt_cli.plugin.component import plain
from nnopt_cli.plugin.options import CommonOptions, ComputeOptions, OutputOptions
from nnopt_cli.report.recipe_runs import BEFORE, RecipeRun, StepRow, figures_of
from nnopt_cli.report.record import Record
from nnopt_cli.report.settings import described

if TYPE_CHECKING:
    from nnopt_cli.recipe.recipe import Plan
    from nnopt_cli.recipe.steps import CommandStep
    from nnopt_cli.run import Run


@dataclass
class _Going:
    """A run as far as it is: the model that the next step gets, and what is done."""

    plan: Plan
    context: Context
    journal: Journal
    model: Path | None
    record: Record | None = None
    steps: list[StepRow] = field(default_factory=list)
    followed: list[Followed] = field(default_factory=list)
    code: int = 0


def one_run(plan: Plan, context: Context, *, alone: bool) -> tuple[RecipeRun, list[Followed], int]:
    """One run; in a sweep a failure is a row of the table, and the other runs go on."""
    try:
        return _whole(plan, context, alone=alone)
    except NnoptError as error:
        if alone:
            raise
        context.run.note(f"{said_of(plan)}: {error.message}")
        run = RecipeRun(
            variables=dict(plan.variables), figures={}, steps=[], record=None, error=error.message
        )
        return run, [], error.exit_code


def _whole(plan: Plan, context: Context, *, alone: bool) -> tuple[RecipeRun, list[Followed], int]:
    from nnopt_cli import __version__

    run = make_run({CommonOptions: context[CommonOptions], ComputeOptions: plan.compute}, context.run.console)
    run.registry = context.registry
    going = _Going(plan, context, _journal(plan, context), plan.model)
    _check_places(going)
    going.journal.follow([__version__, plain(plan.reading), plain(plan.compute), str(plan.model)])
    _commands(going, plan.first)
    if plan.first and going.model is None:
        context.run.note("The passes were left out: with --dry-run there is no file to work on.")
    elif plan.passes:
        _passes(going, run, tag="" if alone or plan.output else _short(plan))
    _commands(going, plan.last)
    going.journal.finished()
    record, steps = going.record, going.steps
    figures = figures_of(record, steps)[0] if record is not None else {}
    done = RecipeRun(variables=dict(plan.variables), figures=figures, steps=steps, record=record)
    return done, going.followed, going.code


def _journal(plan: Plan, context: Context) -> Journal:
    """Needed where several things are written: with passes alone the `Workshop` does."""
    work, steps = context[RunOptions].work, (*plan.first, *plan.last)
    if not steps or context[OutputOptions].dry_run:
        return Journal(None, kept=False)
    if work is not None:
        return Journal(work / "commands.json", kept=True)
    place = next((each for each in (plan.output, *map(output_of, steps), plan.model) if each), None)
    return Journal(place and place.with_name(f".{place.name}.run.json"), kept=False)


def _check_places(going: _Going) -> None:
    """Refuse, before any work, files that a step would not be let write."""
    out = going.context[OutputOptions]
    for step in (*going.plan.first, *going.plan.last):
        if (page := page_of(step)) is not None:
            check_report(page)
        place = output_of(step)
        if place is not None and not out.dry_run and not going.journal.holds(place):
            found = step.options.get(OutputOptions)
            check_output(place, out.force or (isinstance(found, OutputOptions) and found.force))


def _commands(going: _Going, steps: Iterable[CommandStep]) -> None:
    """Run commands on the model, one after the other; what one of them writes may be the next one's model."""
    for step in steps:
        if going.model is None:
            note = f"{step.name} was left out: with --dry-run there is no file to work on."
            going.context.run.note(note)
            continue
        read = {key: value for key, value in step.table.items() if key not in ("output", "report")}
        going.journal.follow([read, str(going.model)], str(output_of(step)))
        known = going.journal.recall()
        if known is None:
            done = follow(step, going.model, going.plan, going.context)
            _note(going.journal, done)
        else:
            done = remembered(step, known)
        going.followed.append(done)
        going.code = max(going.code, done.code)
        going.model = done.output if done.makes else going.model
        settings = described({key: value for key, value in step.table.items() if key != "command"})
        row = StepRow(
            step=step.name,
            settings=settings,
            seconds=done.seconds,
            resumed=done.resumed,
            result=done.document,
        )
        going.steps.append(row)


def _note(journal: Journal, done: Followed) -> None:
    """Remember a command that wrote something or took long; others are done again, and shown in full."""
    if done.output is None and done.seconds < LONG:
        return
    beside = done.document.get("files") or []
    folder = done.output.parent if done.output else Path()
    files = [path for name in beside if (path := folder / str(name)).exists()]
    output = None if done.output is None else str(done.output)
    body = {"document": done.document, "code": done.code, "seconds": done.seconds, "output": output}
    journal.note(body, dict.fromkeys([*([done.output] if done.output else []), *files]))


def _passes(going: _Going, run: Run, *, tag: str) -> None:
    """The passes, unless an earlier run has done them all."""
    plan, out = going.plan, going.context[OutputOptions]
    steps = [[dict(step.table), step.seed] for step in plan.passes]
    going.journal.follow([steps, str(going.model)], [str(plan.output), tag])
    known = going.journal.recall()
    if known is None:
        began = replace(plan, model=going.model)
        going.record, rows = _pass_part(began, going.context, run, tag=tag)
        gate = run.gate_missed
        if going.record.output is not None:
            body = {
                "record": going.record.model_dump(mode="json"),
                "rows": [row.model_dump(mode="json") for row in rows],
                "gate_missed": gate,
            }
            going.journal.note(body, [Path(going.record.output)])
    else:
        record = Record.model_validate(known["record"])
        names = ", ".join(step.method.name for step in plan.passes)
        said = f"Finished before, and taken from {record.output}: {names}."
        going.record = record.model_copy(update={"notes": [*record.notes, said]})
        rows = [StepRow.model_validate({**row, "resumed": True}) for row in known["rows"]]
        gate = bool(known["gate_missed"])
    going.steps += rows
    going.code = max(going.code, GATE_MISSED if gate else 0)
    going.model = Path(going.record.output) if going.record.output and not out.dry_run else None


def _pass_part(plan: Plan, context: Context, run: Run, *, tag: str) -> tuple[Record, list[StepRow]]:
    """The passes of a plan, their record, and a row for each."""
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
    last = max((n for n, (_, shrank) in enumerate(steps) if shrank), default=len(steps) - 1)
    if record.shrunk is None or record.shrunk.metric is None or last == len(steps) - 1:
        return record
    name = f"{record.shrunk.metric_name}{BEFORE}{steps[last + 1][0]}"
    return record.model_copy(update={"shrunk": record.shrunk.model_copy(update={"metric_name": name})})


def _short(plan: Plan) -> str:
    return tag_of(plan, [plan, replace(plan, variables={})])


def tag_of(plan: Plan, plans: list[Plan]) -> str:
    """The values of a run that differ between runs, as a word of a file's name."""
    import re

    from nnopt_cli.recipe.variables import as_text

    varied = [n for n in plan.variables if len({repr(each.variables.get(n)) for each in plans}) > 1]
    words = (f"{name}-{as_text(plan.variables[name])}" for name in varied)
    return ".".join(re.sub(r"[^\w.=+-]+", "_", word) for word in words)


def said_of(plan: Plan) -> str:
    """The values of a run's variables, as one reads them."""
    from nnopt_cli.report.recipe_runs_console import said

    return ", ".join(f"{name} {said(value)}" for name, value in plan.variables.items())
