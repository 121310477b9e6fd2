"""`nnopt compare`: what differs between two model files."""

from __future__ import annotations

from nnopt_cli.commands.common import LOOK, Arg, CommandSpec, Context
from nnopt_cli.errors import FAILED
from nnopt_cli.plugin.component import option
from nnopt_cli.plugin.options import Options, ReportOptions


class CompareOptions(Options):
    """How the two files are read, and what the exit code says."""

    key_a: str | None = option(
        None, help="Which entry of a nested checkpoint A holds the weights.", metavar="NAME"
    )
    key_b: str | None = option(
        None, help="Which entry of a nested checkpoint B holds the weights.", metavar="NAME"
    )
    exit_code: bool = option(False, help="Exit with 1 if any weight, name, shape or dtype differs.")


def body(context: Context) -> int:
    """Stream both files once, at constant memory, and show what differs."""
    from nnopt_cli.model.io import load
    from nnopt_cli.report.comparison import compare_models
    from nnopt_cli.report.comparison_console import render
    from nnopt_cli.report.details import pairs_of

    wanted = context[CompareOptions]
    a = load(context.path("a"), key=wanted.key_a)
    b = load(context.path("b"), key=wanted.key_b)
    record = compare_models(a, b, context.run)
    if context.report is not None:
        pairs = [
            (row.name, a.weights[row.name], b.weights[row.name_b or row.name])
            for row in record.having("changed", "equal", "identical")
            if row.prunable and not row.repeated
        ]
        record = record.model_copy(update={"histograms": pairs_of(pairs)})
    verbose = context.run.verbose
    context.emit(record.model_dump(mode="json"), lambda console: render(record, console, verbose), record)
    return FAILED if wanted.exit_code and record.differ else 0


COMMAND = CommandSpec(
    name="compare",
    help="Show what differs between two model files, tensor by tensor: values, zeros, names and shapes.",
    panel=LOOK,
    arguments=(Arg("a", "The first model file or folder."), Arg("b", "The second one.")),
    options=(CompareOptions, ReportOptions),
    body=body,
)
