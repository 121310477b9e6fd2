"""`nnopt inspect`: what is in a model file."""

from __future__ import annotations

from typing import Literal

from nnopt_cli.commands.common import LOOK, Arg, CommandSpec, Context
from nnopt_cli.plugin.component import option
from nnopt_cli.plugin.options import ModelOptions, Options


class InspectOptions(Options):
    """What is looked at, and in which order it is shown."""

    headers: bool = option(False, help="Read headers only: names, shapes and types, no figures of the data.")
    sort: Literal["file", "name", "size", "sparsity", "norm", "max"] = option(
        "file", help="Order of the tensors: file, name, or the largest size, sparsity, norm or max first."
    )
    cost: bool = option(
        False, help="Also count what each layer of the graph costs: parameters, multiply-accumulates, memory."
    )
    include: tuple[str, ...] = option(
        (), help="Only tensors whose name matches this pattern.", metavar="GLOB"
    )
    exclude: tuple[str, ...] = option((), help="Leave out tensors whose name matches.", metavar="GLOB")


def body(context: Context) -> None:
    """Read the file once, at constant memory, and show what is in it."""
    from nnopt_cli.plugin.opening import open_model
    from nnopt_cli.report.inspection import inspect_model
    from nnopt_cli.report.inspection_console import render

    wanted = context[InspectOptions]
    record = inspect_model(
        open_model(context.path("model"), context[ModelOptions], context.registry),
        context.run,
        include=wanted.include,
        exclude=wanted.exclude,
        stats=not wanted.headers,
        order=wanted.sort,
        cost=wanted.cost,
    )
    context.emit(record.model_dump(mode="json"), lambda console: render(record, console))


COMMAND = CommandSpec(
    name="inspect",
    help="Show what is in a model file: format, provenance, and every tensor's shape, sparsity and norms.",
    panel=LOOK,
    arguments=(Arg("model", "The model file or folder."),),
    options=(ModelOptions, InspectOptions),
    body=body,
)
