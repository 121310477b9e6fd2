"""The commands that may follow the passes of a recipe, and how they are run on what the passes made.

A command needs nothing for it but to stand in this list: its first argument is the model, its options are
the step's keys, and the record that it emits becomes part of the recipe's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from nnopt_cli.commands import analyze, bench, convert, ensemble, evaluate, export
from nnopt_cli.commands import inspect as inspect_command
from nnopt_cli.commands.common import CommandSpec, Context, make_run
from nnopt_cli.commands.saving import save_report
from nnopt_cli.errors import UsageError
from nnopt_cli.plugin.options import (
    CommonOptions,
    ComputeOptions,
    MemberOptions,
    ModelOptions,
    OutputOptions,
    ReportOptions,
)
from nnopt_cli.report.text import printable

if TYPE_CHECKING:
    from pydantic import BaseModel

    from nnopt_cli.recipe.recipe import Plan
    from nnopt_cli.recipe.steps import CommandStep
    from nnopt_cli.report.record import Row

FOLLOWERS: tuple[CommandSpec, ...] = (
    evaluate.COMMAND,
    analyze.COMMAND,
    bench.COMMAND,
    inspect_command.COMMAND,
    convert.COMMAND,
    ensemble.COMMAND,
    export.COMMAND,
)


@dataclass
class Caught(Context):
    """A context that keeps what a command gives, to be shown when all steps are done."""

    show: Callable[[Console], None] = field(default=lambda console: None)
    page: Path | None = None  # what the step's own `report` names

    def emit(self, document: object, show: Callable[[Console], None], record: Row | None = None) -> None:
        self.document, self.show = document, show
        if self.page is not None and record is not None:
            save_report(record, self.page)


@dataclass(frozen=True)
class Followed:
    """What a command came to."""

    name: str
    code: int
    seconds: float
    document: dict[str, Any]
    show: Callable[[Console], None]
    output: Path | None
    makes: bool
    resumed: bool = False


def follow(step: CommandStep, model: Path, plan: Plan, context: Context) -> Followed:
    """Run a command of a recipe on the model at `model`. Raises NnoptError."""
    spec = _command(step)
    options = {kind: _filled(found, model, plan, context) for kind, found in step.options.items()}
    options[CommonOptions] = context[CommonOptions]
    run = make_run(options, context.run.console)
    run.registry = context.registry
    first = spec.arguments[0]
    arguments: dict[str, Any] = {arg.name: None for arg in spec.arguments[1:]}
    if step.others and not first.multiple:
        raise UsageError(f"{step.name}: takes one model, so 'with' is of no use")
    arguments[first.name] = (str(model), *step.others) if first.multiple else str(model)
    start = time.perf_counter()
    page = page_of(step)
    options[ReportOptions] = ReportOptions(report=page or context.report)
    caught = Caught(arguments, options, context.registry, run, context.console, page=page)
    code = spec.body(caught) or 0
    document = caught.document if isinstance(caught.document, dict) else {}
    written = document.get("output")
    return Followed(
        name=step.name,
        code=code,
        seconds=time.perf_counter() - start,
        document=document,
        show=caught.show,
        output=Path(written) if isinstance(written, str) else None,
        makes=spec.makes,
    )


def remembered(step: CommandStep, body: Mapping[str, Any]) -> Followed:
    """What a journal says that a command came to."""
    output = None if body["output"] is None else Path(body["output"])
    said = f"{step.name}: finished before" + (f", {printable(str(output))}" if output else "")
    return Followed(
        name=step.name,
        code=int(body["code"]),
        seconds=float(body["seconds"]),
        document=dict(body["document"]),
        show=lambda console: console.print(said, markup=False, soft_wrap=True),
        output=output,
        makes=_command(step).makes,
        resumed=True,
    )


def _command(step: CommandStep) -> CommandSpec:
    return next(each for each in FOLLOWERS if each.name == step.name)


def output_of(step: CommandStep) -> Path | None:
    """Where a step says that its result goes."""
    found = step.options.get(OutputOptions)
    return found.output if isinstance(found, OutputOptions) else None


def put_out(step: CommandStep, place: Path) -> CommandStep:
    """The step with its result at another place."""
    found = step.options[OutputOptions].model_copy(update={"output": place})
    return replace(step, options={**step.options, OutputOptions: found})


def page_of(step: CommandStep) -> Path | None:
    """The report that a step asks for."""
    found = step.options.get(ReportOptions)
    return found.report if isinstance(found, ReportOptions) else None


def _filled(options: BaseModel, model: Path, plan: Plan, context: Context) -> BaseModel:
    """The step's own options, and the recipe's where the step says nothing."""
    given = options.model_fields_set
    shared: dict[str, Any] = {}
    if isinstance(options, ModelOptions):
        shared = {name: getattr(plan.reading, name) for name in ("arch", "arch_arg", "input", "operators")}
        if model.suffix.lower() == ".pt2":
            shared |= {"input": (), "arch": None, "arch_arg": ()}  # it says itself what it is and is fed
        if isinstance(options, MemberOptions):
            shared["arch"] = (shared["arch"],) if shared["arch"] else ()
    elif isinstance(options, ComputeOptions):
        shared = {name: getattr(plan.compute, name) for name in ComputeOptions.model_fields}
    elif isinstance(options, OutputOptions):
        shared = {"force": context[OutputOptions].force, "dry_run": context[OutputOptions].dry_run}
    return options.model_copy(update={key: value for key, value in shared.items() if key not in given})
