"""`nnopt export`: a model in the form in which it is deployed, proven to compute the same there."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import field_validator

from nnopt_cli.commands.common import FORMS, Arg, CommandSpec, Context
from nnopt_cli.commands.passes import check_output, default_output
from nnopt_cli.errors import GateMissedError, NnoptError, UsageError
from nnopt_cli.plugin.component import option
from nnopt_cli.plugin.data import DataOptions
from nnopt_cli.plugin.exporter import Exporter, Job
from nnopt_cli.plugin.merged import ComponentFlags
from nnopt_cli.plugin.options import ComputeOptions, ModelOptions, Options, OutputOptions, ReportOptions

if TYPE_CHECKING:
    from nnopt_cli.data import Data
    from nnopt_cli.graph import Parity
    from nnopt_cli.model.model import Model
    from nnopt_cli.report.exported import Exported, Measured, Speed


class ExportOptions(Options):
    """What is written, and what it must hold."""

    format: Exporter | None = option(
        None, help="The form, where the suffix of -o does not say it.", metavar="NAME"
    )
    tolerance: float | None = option(
        None,
        help="Largest difference from PyTorch, over the largest output; by default what rounding explains.",
        gt=0,
    )
    samples: int = option(512, help="How many samples of --data calibration sees at most.", ge=1)
    max_drop: str | None = option(
        None,
        help="Fail (exit code 4) where the metric on --data falls by more: 1% or 0.01.",
        metavar="DROP",
    )
    card: bool = option(False, help="Also write README.md beside the output: what it is and how to load it.")

    @field_validator("max_drop")
    @classmethod
    def _share(cls, text: str | None) -> str | None:
        if text is not None:
            _drop(text)
        return text


def _drop(text: str) -> float:
    """Raises ValueError where it is no share."""
    try:
        value = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        raise ValueError("must be a drop such as 1% or 0.01") from None
    if not value >= 0:
        raise ValueError("must not be negative")
    return value


@dataclass(frozen=True)
class _Done:
    """What came out, as long as it lies where it was staged."""

    parity: Parity
    metric: Measured | None
    speed: Speed | None
    bytes: int
    files: list[str]


def body(context: Context) -> None:
    """Write beside the place, prove it there, then move it."""
    from nnopt_cli.formats.staging import staged
    from nnopt_cli.formats.target import check_target
    from nnopt_cli.plugin.opening import open_model
    from nnopt_cli.report.card import card
    from nnopt_cli.report.exported import render

    start = time.perf_counter()
    wanted, run, out = context[ExportOptions], context.run, context[OutputOptions]
    model = open_model(context.path("model"), context[ModelOptions], context.registry)
    path = out.output or default_output(model.path, "", ".onnx")
    exporter = _exporter(context, path)
    inputs = (model.path, *model.container.files)
    if not out.dry_run:
        check_output(path, out.force)
        if wanted.card:
            check_output(_card_path(path), out.force)
    target = check_target(path, folder=not path.suffix, force=out.force, inputs=inputs)
    model.require(exporter.needs)
    data = _data(context, model, exporter)
    digest = _digest(model)
    strings = _strings(model, exporter, digest)
    job = Job(run, data, wanted.samples, wanted.tolerance, strings)
    with staged(target, keep=not out.dry_run) as folder:
        place = folder / target.place.name
        with _called(path, place):
            done = _written(exporter, model, place, job, wanted, timed=context.report is not None)
        record = _record(context, model, exporter, path, done, digest, time.perf_counter() - start)
        if wanted.card:
            home = place if place.is_dir() else folder
            (home / "README.md").write_text(card(record), encoding="utf-8")
    context.emit(record.model_dump(mode="json"), lambda console: render(record, console, run.verbose), record)


def _exporter(context: Context, path: Path) -> Exporter:
    """The exporter that `--format` or the suffix names, with the options that were given."""
    registry, wanted = context.registry, context[ExportOptions]
    flags = next(each for each in context.options.values() if isinstance(each, ComponentFlags))
    suffix = path.suffix.lower()
    if wanted.format is not None:
        if flags.model_fields_set:
            given = {**{k: getattr(flags, k) for k in flags.model_fields_set}, **_set(wanted.format)}
            made = type(flags)(**given).build(type(wanted.format), registry)
            assert isinstance(made, Exporter)
            return made
        return wanted.format
    every = [cls for cls in registry.all("exporter") if issubclass(cls, Exporter)]
    found = next((cls for cls in every if suffix in cls.suffixes), None)
    if found is None:
        known = ", ".join(s for cls in every for s in cls.suffixes if s)
        raise UsageError(
            f"{path}: no exporter writes {suffix or 'folders'}" + (" files" if suffix else ""),
            f"There are: {known}, and a folder of safetensors (a name without a suffix).",
        )
    made = flags.build(found, registry)
    assert isinstance(made, Exporter)
    return made


def _set(exporter: Exporter) -> Mapping[str, Any]:
    return {name: getattr(exporter, name) for name in exporter.model_fields_set}


def _card_path(path: Path) -> Path:
    return path.with_name("README.md") if path.suffix else path / "README.md"


def _data(context: Context, model: Model, exporter: Exporter) -> Data | None:
    if context[DataOptions].data is None:
        if exporter.needs_data:
            raise UsageError("calibration needs data that are like those to come", "Add --data FILE.")
        if context[ExportOptions].max_drop is not None:
            raise UsageError("--max-drop is about a metric on data", "Add --data FILE.")
        return None
    model.require("module")
    return context[DataOptions].open(context.run, model)


def _digest(model: Model) -> str:
    """The hash of the weights that were read."""
    from nnopt_cli.model.hashing import input_hash

    return (model.graph.source_hash if model.graph else "") or input_hash(model)


def _strings(model: Model, exporter: Exporter, digest: str) -> dict[str, str]:
    """The model's record with what was written, for the file's metadata."""
    from nnopt_cli import __version__

    inputs = model.provenance.inputs or ({"path": model.path.name, "blake3": digest},)
    results = {**model.provenance.results, "export": exporter.table()}
    return replace(model.provenance, inputs=inputs, results=results, version=__version__).to_strings()


@contextmanager
def _called(path: Path, place: Path) -> Iterator[None]:
    """Messages speak of the output by the name that it will have, not of where it is staged."""
    try:
        yield
    except NnoptError as error:
        error.message = error.message.replace(str(place), str(path))
        error.args = (error.message,)
        raise


def _written(
    exporter: Exporter, model: Model, place: Path, job: Job, wanted: ExportOptions, *, timed: bool
) -> _Done:
    """Export, verify, measure. Raises NnoptError where the file is not what the model is."""
    exporter.export(model, place, job)
    parity = _proven(exporter, model, place, job)
    metric = _metric(exporter, model, place, job, wanted)
    from nnopt_cli.commands.speed import speed

    took = speed(exporter, model, place) if wanted.card or timed else None
    files = sorted(place.iterdir()) if place.is_dir() else sorted(place.parent.iterdir())
    names = [place.name] if place.is_dir() else [file.name for file in files]
    names += ["README.md"] if wanted.card else []
    return _Done(parity, metric, took, sum(file.stat().st_size for file in files), names)


def _proven(exporter: Exporter, model: Model, place: Path, job: Job) -> Parity:
    found = exporter.verify(model, place, job)
    if not found.passed:
        raise NnoptError(
            f"the {place.suffix or 'new'} file is not proven to be the model: {found.fault}",
            "Nothing was written."
            + (" --tolerance allows more." if "is allowed" in (found.fault or "") else ""),
        )
    return found


def _metric(
    exporter: Exporter, model: Model, place: Path, job: Job, wanted: ExportOptions
) -> Measured | None:
    from nnopt_cli.report.exported import Measured

    call = exporter.opened(place, job) if job.data is not None else None
    if job.data is None or call is None:
        return None
    from nnopt_cli.data import measure

    gate = job.data.gate
    before = measure(model.module(), job.data, job.run, (gate,)).metrics[gate.name]
    after = measure(call, job.data, job.run, (gate,)).metrics[gate.name]
    lost = before - after if gate.larger_is_better else after - before
    if wanted.max_drop is not None and not lost <= _drop(wanted.max_drop):
        raise GateMissedError(
            f"--max-drop {wanted.max_drop}: {gate.name} goes from {before:.4f} to {after:.4f}",
            "Nothing was written. More or other calibration data, or fewer bits for fewer weights, may help.",
        )
    samples = job.data.measured.size
    return Measured(name=gate.name, before=before, after=after, samples=samples)


def _record(
    context: Context, model: Model, exporter: Exporter, path: Path, done: _Done, digest: str, seconds: float
) -> Exported:
    from nnopt_cli import __version__
    from nnopt_cli.report.exported import exported

    dry = context[OutputOptions].dry_run
    return exported(
        model,
        exporter.name,
        {key: value for key, value in exporter.table().items() if key != "name"},
        exporter.runs_in,
        done.parity,
        output=None if dry else str(path),
        files=done.files,
        size=done.bytes,
        blake3=digest,
        metric=done.metric,
        speed=done.speed,
        notes=context.run.notes,
        seconds=seconds,
        version=__version__,
    )


COMMAND = CommandSpec(
    name="export",
    help="""Write a model in the form in which it is deployed, proven to compute the same there.

    The suffix of -o picks the form: .onnx, .safetensors, .pt (a state dict), .pt2, or a folder of safetensors
    shards. What was written is read and run, at two of every size that may vary, and compared with PyTorch;
    a file that differs, or of which nothing can be said, is not kept.

    Examples:
      nnopt export model.pt2 -o model.onnx --card
      nnopt export model.pt --arch net.py:build --input 3x224x224 -o model.onnx --dtype fp16
      nnopt export model.pt2 -o model.onnx --quantize static --data train.parquet --normalize imagenet
      nnopt export model.pt2 -o folder --shard-size 2GB""",
    panel=FORMS,
    arguments=(Arg("model", "The model: a checkpoint, a safetensors file, a folder of shards, a .pt2."),),
    options=(ExportOptions, DataOptions, ModelOptions, OutputOptions, ReportOptions, ComputeOptions),
    body=body,
    flags_of="exporter",
)
