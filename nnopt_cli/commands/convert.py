"""`nnopt convert`: the same model in another kind of file."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from nnopt_cli.commands.common import FORMS, Arg, CommandSpec, Context
from nnopt_cli.commands.passes import check_output, default_output
from nnopt_cli.errors import NnoptError, UsageError
from nnopt_cli.plugin.options import ComputeOptions, ModelOptions, OutputOptions

if TYPE_CHECKING:
    from nnopt_cli.model.model import Model
    from nnopt_cli.report.conversion import Agreement


def body(context: Context) -> None:
    """Open the model, check the graph if one is written, and save it in the other form."""
    from nnopt_cli import __version__
    from nnopt_cli.model.io import save
    from nnopt_cli.plugin.opening import open_model
    from nnopt_cli.report.build import disk_bytes, is_parameter
    from nnopt_cli.report.conversion import Conversion, render

    start = time.perf_counter()
    run, out = context.run, context[OutputOptions]
    model = open_model(context.path("model"), context[ModelOptions], context.registry)
    path = out.output or _beside(model)
    if not out.dry_run:
        check_output(path, out.force)
    whole = path.suffix.lower() == ".pt2"
    if whole:
        model.require("graph")
    agreement = _agreement(model) if whole else None
    saved = save(model, None if out.dry_run else path, run=run, force=out.force)
    unique = model.unique()
    record = Conversion(
        input=str(model.path),
        input_format=model.container.format,
        input_bytes=disk_bytes(model.container.files),
        output=None if saved.path is None else str(saved.path),
        output_bytes=saved.bytes,
        tensors=len(unique),
        parameters=sum(weight.numel for name, weight in unique.items() if is_parameter(name, weight)),
        blake3=saved.blake3,
        fed=str(model.inputs) if whole else None,
        agreement=agreement,
        notes=list(dict.fromkeys((*model.notes, *run.notes, *saved.notes))),
        seconds=time.perf_counter() - start,
        version=__version__,
    )
    context.emit(record.model_dump(mode="json"), lambda console: render(record, console, run.verbose))


def _beside(model: Model) -> Path:
    if model.rung == "graph" and model.container.format != "pt2":
        return default_output(model.path, "", ".pt2")
    raise UsageError(
        "convert needs to know what to",
        "Name the output with -o: NAME.safetensors, NAME.pt, NAME.pt2, or a folder for shards.",
    )


def _agreement(model: Model) -> Agreement | None:
    """Hold the graph against the module, on random inputs. Raises NnoptError where they differ."""
    if model.arch is None:
        return None
    from nnopt_cli.model.agreement import BATCHES, difference, tolerance
    from nnopt_cli.report.conversion import Agreement

    program, inputs = model.program(), model.inputs
    assert inputs is not None
    off, allowed = difference(program, model.module(), inputs), tolerance(program)
    if not off <= allowed:
        raise NnoptError(
            f"{model.path}: the exported graph does not compute what the module does: "
            f"they differ by {off:.2g} of the largest output",
            "Its forward may keep state or draw random numbers. Nothing was written.",
        )
    return Agreement(
        difference=off, tolerance=allowed, batches=list(BATCHES if inputs.batch else BATCHES[:1])
    )


COMMAND = CommandSpec(
    name="convert",
    help="""Write the same model as another kind of file; its weights stay as they are, bit for bit.

    With --arch and --input it becomes a .pt2: the graph and the weights in one file, which every pass can
    work on and PyTorch can load without the model's source.

    Examples:
      nnopt convert model.pt --arch net.py:build --input 3x224x224 -o model.pt2
      nnopt convert model.pt -o model.safetensors
      nnopt convert folder -o model.pt
      nnopt convert model.pt2 -o weights.safetensors""",
    panel=FORMS,
    arguments=(Arg("model", "The model: a checkpoint, a safetensors file, a folder of shards, a .pt2."),),
    options=(ModelOptions, OutputOptions, ComputeOptions),
    body=body,
    makes=True,
)
