"""Every pass as a command: load, run, save, report."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from nnopt_cli.commands.chain import Link, Order, check_output, default_output, run_chain
from nnopt_cli.commands.common import PASSES, Arg, CommandSpec, Context, device_of
from nnopt_cli.commands.records import record_of
from nnopt_cli.errors import GATE_MISSED
from nnopt_cli.plugin.kinds import Pass
from nnopt_cli.plugin.options import ComputeOptions, ModelOptions, OutputOptions, RecipeOptions, ReportOptions

if TYPE_CHECKING:
    from nnopt_cli.plugin.registry import Registry

_MODEL = "The model: a checkpoint, a safetensors file, a folder of shards, a .pt2."
_SCRATCH = " Without one, what --arch builds."
__all__ = ["check_output", "default_output", "pass_commands", "run_pass"]


def pass_commands(registry: Registry) -> list[CommandSpec]:
    """A command for each pass, by name."""
    found = [cls for cls in registry.all("pass") if issubclass(cls, Pass)]
    return [_command(cls) for cls in sorted(found, key=lambda cls: cls.name)]


def _command(cls: type[Pass]) -> CommandSpec:
    return CommandSpec(
        name=cls.name,
        help=cls.__dict__.get("__doc__") or f"Run the pass {cls.name}.",
        panel=PASSES,
        arguments=(Arg("model", _MODEL + _SCRATCH * cls.from_scratch, required=not cls.from_scratch),),
        options=(cls, ModelOptions, OutputOptions, RecipeOptions, ReportOptions, ComputeOptions),
        body=partial(run_pass, cls),
    )


def run_pass(cls: type[Pass], context: Context) -> int:
    """Run one pass on one file, and report what it did."""
    from nnopt_cli.commands.saving import save_recipe
    from nnopt_cli.report.console import render

    start = time.perf_counter()
    method, run, out = context[cls], context.run, context[OutputOptions]
    if cls.on_gpu:
        run.device = device_of(context[ComputeOptions].device, run.device)
    save_recipe(context, method, dry_run=True)
    order = Order(
        source=None if context.arguments["model"] is None else context.path("model"),
        reading=context[ModelOptions],
        links=[Link(method, run.seed)],
        output=out.output,
        force=out.force,
        dry_run=out.dry_run,
    )
    record = record_of(
        run_chain(order, run, context.registry),
        run,
        command=cls.name,
        options=method.table(),
        seconds=time.perf_counter() - start,
        dry_run=out.dry_run,
        detailed=context.report is not None,
    )
    save_recipe(context, method)
    context.emit(record.model_dump(mode="json"), lambda console: render(record, console, run.verbose), record)
    return GATE_MISSED if run.gate_missed else 0
