"""The commands that may follow the passes of a recipe, and how they are run on what the passes made.

A command needs nothing for it but to stand in this list: its first argument is the model, its options are
the step's keys, and the record that it emits becomes part of the recipe's.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from nnopt_cli.commands import analyze, bench, convert, ensemble, evaluate, export
from nnopt_cli.commands import inspect as inspect_command
from nnopt_cli.commands.common import CommandSpec, Context, make_run
from nnopt_cli.errors import UsageError
from nnopt_cli.plugin.options import CommonOptions, ComputeOptions, MemberOptions, ModelOptions, OutputOptions

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
MAKERS = {"convert", "ensemble"}  # what these write is the model of the steps after them


@dataclass
class Caught(Context):
    """A context that keeps what a command gives, to be shown when all steps are done."""

    show: Callable[[Console], None] = field(default=lambda console: None)
    record: Row | None = None

    def emit(self, document: object, show: Callable[[Console], None], record: Row | None = None) -> None:
        self.document, self.show, self.record = document, show, record


@dataclass(frozen=True)
class Followed:
    """What a command came to."""

    name: str
    code: int
    seconds: float
    document: dict[str, Any]
    show: Callable[[Console], None]
    output: Path | None


def follow(step: CommandStep, model: Path, plan: Plan, context: Context) -> Followed:
    """Run a command of a recipe on the model at `model`. Raises NnoptError."""
    spec = next(each for each in FOLLOWERS if each.name == step.name)
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
    caught = Caught(arguments, options, context.registry, run, context.console)
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
    )


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
        shared = {"force": context[OutputOptions].force}
    return options.model_copy(update={key: value for key, value in shared.items() if key not in given})
