"""`nnopt verify`: whether two model files compute the same."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from nnopt_cli.commands.common import LOOK, Arg, CommandSpec, Context
from nnopt_cli.errors import FAILED, NnoptError, UsageError
from nnopt_cli.plugin.component import option
from nnopt_cli.plugin.data import DataOptions
from nnopt_cli.plugin.options import ComputeOptions, ModelOptions, Options, ReportOptions

if TYPE_CHECKING:
    from torch import Tensor

    from nnopt_cli.graph import Side
    from nnopt_cli.model.model import Model

TOLERANCE = 1e-4  # of the largest output, where nobody says otherwise


class VerifyOptions(Options):
    """What counts as the same."""

    tolerance: float | None = option(
        None,
        help="Largest difference over the largest output; by default 1e-4, for 16-bit weights 2e-2.",
        gt=0,
    )
    quantized: bool = option(
        False, help="B holds few-bit weights: hold it to a signal-to-noise ratio instead of a difference."
    )


def body(context: Context) -> int:
    """Open both, run both on the same inputs, and show what came out."""
    from nnopt_cli.graph import verify
    from nnopt_cli.report.verified import Verified, render

    start = time.perf_counter()
    wanted, paths = context[VerifyOptions], [context.path("a"), context.path("b")]
    sides, models = zip(*(_side(context, path) for path in paths), strict=True)
    tolerance = wanted.tolerance or (2e-2 if any(map(_coarse, models)) else TOLERANCE)
    found = verify(
        sides[0],
        sides[1],
        tolerance=tolerance,
        measure="noise" if wanted.quantized else "difference",
        data=_data(context, models[0], sides[0]),
    )
    from nnopt_cli import __version__
    from nnopt_cli.report.exported import compared

    record = Verified(
        a=str(paths[0]),
        b=str(paths[1]),
        parity=compared(replace(found, against=paths[0].name)),
        same=found.passed,
        notes=list(context.run.notes),
        seconds=time.perf_counter() - start,
        version=__version__,
    )
    context.emit(record.model_dump(mode="json"), lambda console: render(record, console), record)
    return 0 if found.passed else FAILED


def _side(context: Context, path: Path) -> tuple[Side, Model | None]:
    from nnopt_cli.graph import onnx_side, program_side
    from nnopt_cli.model.io import load
    from nnopt_cli.plugin.opening import open_model

    options = context[ModelOptions]
    if path.suffix.lower() == ".onnx":
        if not path.is_file():
            raise UsageError(f"{path}: there is no such file")
        try:
            return onnx_side(path, path.name, context.run.threads), None
        except NnoptError as error:
            raise type(error)(f"{path}: {error.message}", error.hint) from error
    model = load(path, key=options.key, operators=options.operators)
    if model.rung != "graph":
        model = open_model(path, options, context.registry)
    model.require("graph")
    return program_side(model.program(), path.name), model


def _coarse(model: Model | None) -> bool:
    kinds = {weight.dtype.name for weight in model.weights.values()} if model else set()
    return bool(kinds & {"float16", "bfloat16"})


def _data(context: Context, model: Model | None, side: Side) -> list[list[Tensor]]:
    """Real inputs, where they were given and there is a model to open them for."""
    from nnopt_cli.data import real_inputs

    if context[DataOptions].data is None:
        return []
    if model is None:
        raise UsageError("--data needs A to be a model that PyTorch runs", "Give the .pt2 first.")
    return real_inputs(context[DataOptions].open(context.run, model), side.spec)


COMMAND = CommandSpec(
    name="verify",
    help="""Check that two model files compute the same: programs, ONNX files, or one of each.

    Both are fed the same inputs, at two of every size that may vary. Inputs to which the outputs do not
    respond prove nothing, so others are tried; where none helps, the check fails. The exit code is 0 where
    the files compute the same and 1 where that is not proven.

    Examples:
      nnopt verify model.pt2 model.onnx
      nnopt verify model.pt2 model.onnx --tolerance 1e-5 --json
      nnopt verify model.pt2 int8.onnx --quantized --data test.parquet""",
    panel=LOOK,
    arguments=(
        Arg("a", "What is right: a .pt2, an .onnx, or weights with --arch and --input."),
        Arg("b", "What is in question."),
    ),
    options=(VerifyOptions, DataOptions, ModelOptions, ReportOptions, ComputeOptions),
    body=body,
)
