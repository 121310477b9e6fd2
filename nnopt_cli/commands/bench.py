"""`nnopt bench`: latency, throughput and peak memory of models, side by side."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal, cast

from pydantic import field_validator

from nnopt_cli.commands.common import LOOK, Arg, CommandSpec, Context
from nnopt_cli.errors import NnoptError, UsageError
from nnopt_cli.plugin.component import option
from nnopt_cli.plugin.options import ComputeOptions, ModelOptions, Options, ReportOptions

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram

    from nnopt_cli.graph.backends import Backend
    from nnopt_cli.graph.setting import Ready, Setting
    from nnopt_cli.report.bench import Bench, Skipped

BACKENDS = ("eager", "compiled", "onnx")


class BenchOptions(Options):
    """What is measured, and how."""

    backend: str = option(
        "eager,onnx",
        help="What runs the models, with commas: eager and compiled are PyTorch's (compiling takes a while), "
        "onnx is ONNX Runtime.",
        metavar="NAME,…",
    )
    batch: int = option(1, help="Samples in one pass, where the model lets that vary.", ge=1)
    dtype: Literal["float32", "float16", "bfloat16", "float64"] | None = option(
        None, help="Cast weights and inputs to this type; PyTorch only."
    )
    seconds: float = option(2.0, help="About how long to measure each model.", gt=0)
    sparse_kernels: bool = option(
        False, help="Also run 2:4 weights of linear maps on the sparse kernels of an NVIDIA GPU."
    )

    @field_validator("backend")
    @classmethod
    def _known(cls, text: str) -> str:
        names = [name.strip() for name in text.split(",")]
        if not all(name in BACKENDS for name in names):
            raise ValueError(f"must be some of {', '.join(BACKENDS)}, with commas between")
        return ",".join(dict.fromkeys(names))

    def backends(self) -> list[Backend]:
        """What runs the models, in order."""
        found = [*self.backend.split(","), *(["sparse"] if self.sparse_kernels else [])]
        return cast("list[Backend]", found)


@dataclass(frozen=True)
class _Entry:
    """A model in a backend, set up."""

    model: str
    backend: Backend
    ready: Ready


def body(context: Context) -> None:
    """Set every model up in every backend, run them in turn, and show the figures."""
    from nnopt_cli.graph.backends import limited
    from nnopt_cli.graph.setting import Setting
    from nnopt_cli.report.bench import Skipped, render

    start = time.perf_counter()
    wanted, run = context[BenchOptions], context.run
    setting = Setting(wanted.batch, run.device, run.threads, _dtype(wanted.dtype))
    skipped: list[Skipped] = []
    entries: list[_Entry] = []
    with TemporaryDirectory(prefix="nnopt-") as folder, limited(run.threads):
        for path, name in zip(*_named(context.arguments["model"]), strict=True):
            source = path if path.suffix.lower() == ".onnx" else _program(context, path)
            for backend in wanted.backends():
                try:
                    ready = _ready(context, source, backend, setting, Path(folder))
                    entries.append(_Entry(name, backend, ready))
                except NnoptError as error:
                    skipped.append(Skipped(model=name, backend=backend, why=error.message))
        if not entries:
            raise NnoptError(f"nothing was measured: {skipped[0].model}: {skipped[0].why}")
        record = _measured(entries, skipped, wanted, setting, start)
    context.emit(record.model_dump(mode="json"), lambda console: render(record, console), record)


def _dtype(name: str | None) -> torch.dtype | None:
    import torch

    return None if name is None else getattr(torch, name)


def _named(given: Iterable[str]) -> tuple[list[Path], list[str]]:
    """Paths, and what to call them: their names where these differ."""
    paths = [Path(text) for text in given]
    short = [path.name or str(path) for path in paths]
    return paths, short if len(set(short)) == len(short) else [str(path) for path in paths]


def _program(context: Context, path: Path) -> ExportedProgram:
    """The graph of a file; `--arch` and `--input` are for those that hold none."""
    from nnopt_cli.model.io import load
    from nnopt_cli.plugin.opening import open_model

    options = context[ModelOptions]
    model = load(path, key=options.key)
    if model.rung != "graph":
        model = open_model(path, options, context.registry)
    model.require("graph")
    return model.program()


def _ready(
    context: Context, source: Path | ExportedProgram, backend: Backend, setting: Setting, folder: Path
) -> Ready:
    from nnopt_cli.graph.backends import prepare
    from nnopt_cli.graph.onnx_runtime import onnx_file
    from nnopt_cli.model.inputs import InputSpec

    if not isinstance(source, Path):
        return prepare(source, backend, setting, folder)
    if backend != "onnx":
        raise NnoptError("an ONNX file runs in ONNX Runtime only")
    if not source.is_file():
        raise UsageError(f"{source}: there is no such file")
    spec = InputSpec.parse(context[ModelOptions].input) if context[ModelOptions].input else None
    if spec is None:
        return onnx_file(source, setting)
    made = spec.tensors(setting.batch)
    if all(each.name for each in spec.inputs):
        return onnx_file(source, setting, {i.name: t for i, t in zip(spec.inputs, made, strict=True)})
    return onnx_file(source, setting, made)


def _measured(
    entries: list[_Entry], skipped: list[Skipped], wanted: BenchOptions, setting: Setting, start: float
) -> Bench:
    from nnopt_cli import __version__
    from nnopt_cli.graph.timing import interleaved
    from nnopt_cli.report.bench import Bench, Timing

    seen = interleaved([each.ready.call for each in entries], wanted.seconds, device=setting.device)
    first: dict[str, float] = {}
    timings = []
    for entry, latency in zip(entries, seen, strict=True):
        timings.append(
            Timing(
                model=entry.model,
                backend=entry.backend,
                median=latency.median,
                low=latency.low,
                high=latency.high,
                runs=latency.runs,
                batch=entry.ready.batch,
                throughput=entry.ready.batch / latency.median,
                peak_bytes=entry.ready.peak(),
                ratio=first.setdefault(entry.backend, latency.median) / latency.median,
            )
        )
    return Bench(
        device=setting.device,
        threads=setting.threads,
        dtype=wanted.dtype,
        timings=timings,
        skipped=skipped,
        notes=[f"{entry.model}: {note}" for entry in entries for note in entry.ready.notes],
        seconds=time.perf_counter() - start,
        version=__version__,
    )


COMMAND = CommandSpec(
    name="bench",
    help="""Measure latency, throughput and peak memory of models, side by side.

    The models run in turn, so that a busy machine slows all of them alike and the ratios can be trusted.
    Memory is of weights and results; in ONNX Runtime it is how much a process grows that loads the model.

    Examples:
      nnopt bench model.pt2 model.pruned.pt2 --threads 1
      nnopt bench model.pt2 model.onnx --backend eager,compiled,onnx --batch 8
      nnopt bench model.pt --arch net.py:build --input 3x224x224
      nnopt bench model.pt2 --device cuda --dtype float16 --batch 64 --backend eager --sparse-kernels""",
    panel=LOOK,
    arguments=(
        Arg("model", "Models: .pt2 or .onnx files, or weights with --arch and --input.", multiple=True),
    ),
    options=(BenchOptions, ModelOptions, ReportOptions, ComputeOptions),
    body=body,
)
