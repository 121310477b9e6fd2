"""`nnopt inspect`: what is in a model file."""

from __future__ import annotations

from typing import Literal

from nnopt_cli.commands.common import LOOK, Arg, CommandSpec, Context
from nnopt_cli.plugin.component import option
from nnopt_cli.plugin.options import ModelOptions, Options, ReportOptions


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
    from nnopt_cli.report.details import pairs_of
    from nnopt_cli.report.inspection import inspect_model
    from nnopt_cli.report.inspection_console import render

    wanted = context[InspectOptions]
    if context.path("model").suffix.lower() == ".onnx":
        from nnopt_cli.report import onnx_inspection

        found = onnx_inspection.inspect_onnx(context.path("model"))
        context.emit(found.model_dump(mode="json"), lambda console: onnx_inspection.render(found, console))
        return
    model = open_model(context.path("model"), context[ModelOptions], context.registry)
    record = inspect_model(
        model,
        context.run,
        include=wanted.include,
        exclude=wanted.exclude,
        stats=not wanted.headers,
        order=wanted.sort,
        cost=wanted.cost,
    )
    if context.report is not None and not wanted.headers:
        shown = [row.name for row in record.tensors if row.prunable and row.tied_to is None and row.elements]
        pairs = pairs_of([(name, None, model.weights[name]) for name in shown])
        record = record.model_copy(update={"histograms": pairs})
    context.emit(record.model_dump(mode="json"), lambda console: render(record, console), record)


COMMAND = CommandSpec(
    name="inspect",
    help="Show what is in a model file: format, provenance, and every tensor's shape, sparsity and norms.",
    panel=LOOK,
    arguments=(Arg("model", "The model file or folder."),),
    options=(ModelOptions, InspectOptions, ReportOptions),
    body=body,
)
