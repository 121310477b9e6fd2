"""`nnopt evaluate`: how good models are on data, side by side."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from nnopt_cli.commands.common import LOOK, Arg, CommandSpec, Context, device_of
from nnopt_cli.errors import NnoptError
from nnopt_cli.plugin.component import Component, option, plain
from nnopt_cli.plugin.data import DataOptions
from nnopt_cli.plugin.options import ComputeOptions, MemberOptions, Options, ReportOptions

if TYPE_CHECKING:
    from torch import nn

    from nnopt_cli.data import Contestant, Data, Evaluations
    from nnopt_cli.model.model import Model
    from nnopt_cli.run import Run


class EvaluateOptions(Options):
    """What is measured."""

    per_class: bool = option(False, help="Also the figures of every class, and which are confused.")
    dtype: Literal["float32", "float16", "bfloat16"] | None = option(
        None, help="Compute in this type (16-bit ones by autocast); by default as the model is."
    )


def body(context: Context) -> None:
    """Open the data for the first model, check that all fit, and run them over it together."""
    from nnopt_cli.report.evaluation import evaluated
    from nnopt_cli.report.evaluation_console import render

    start = time.perf_counter()
    run, wanted = context.run, context[EvaluateOptions]
    run.device = device_of(context[ComputeOptions].device, run.device)
    texts = context.arguments["model"]
    models = [_opened(context, Path(text), place, len(texts)) for place, text in enumerate(texts)]
    modules = [model.module() for model in models]
    data = context[DataOptions].open(run, models[0], module=modules[0])
    if data.measured.size == 1:
        raise NnoptError(
            f"{data.measured.source.origin}: holds one sample, on which nothing can be measured",
            "Give at least two.",
        )
    found = compared(run, models, data, modules=modules, dtype=wanted.dtype, detailed=wanted.per_class)
    directions = {metric.name: metric.larger_is_better for metric in data.metrics}
    record = evaluated(
        models,
        found,
        data.measured,
        data.task,
        settings=_settings(context[DataOptions], data),
        loss=data.loss.spec() if isinstance(data.loss, Component) else str(data.loss),
        gate=data.gate.name,
        larger_is_better=directions,
        notes=[*(note for model in models for note in model.notes), *run.notes],
        seconds=time.perf_counter() - start,
        device=run.device if wanted.dtype is None else f"{run.device}, {wanted.dtype}",
    )
    context.emit(record.model_dump(mode="json"), lambda console: render(record, console), record)


def _opened(context: Context, path: Path, place: int, count: int) -> Model:
    """A model with what computes it; `--arch` and `--input` are for files that hold weights only."""
    from nnopt_cli.plugin.opening import load, open_model

    options = context[MemberOptions].of(place, count)
    alone = load(path, key=options.key)
    model = alone if alone.rung == "graph" and options.arch is None else None
    if model is None and alone.rung == "graph" and count > 1:
        model = alone  # beside others that need --arch
    model = model or open_model(path, options, context.registry)
    model.require("module")
    return model


def compared(
    run: Run,
    models: Sequence[Model],
    data: Data,
    *,
    modules: Sequence[nn.Module] | None = None,
    dtype: str | None = None,
    detailed: bool = False,
) -> Evaluations:
    """All models over the measured rows, with a progress bar.

    Args:
        run: where it is computed.
        models: on the module rung.
        data: as they were opened for the first model.
        modules: what the models' `module()` gave, where that was asked for already.
        dtype: computed in this type; by default as the models are.
        detailed: also the figures of every class.

    Raises NnoptError: one does not take the data, or gives something else than the first.
    """
    import torch

    from nnopt_cli.data import evaluate_all
    from nnopt_cli.report.progress import counted

    modules = modules or [model.module() for model in models]
    contestants = [_contestant(*pair, data, run.device) for pair in zip(models, modules, strict=True)]
    with counted(run, "Evaluating", data.measured.size) as tick:
        return evaluate_all(
            contestants,
            replace(data.measured, keep=False),  # one pass: nothing is asked for twice
            task=data.task,
            loss=data.loss,
            metrics=[metric for metric in data.metrics if detailed or not metric.detail],
            device=run.device,
            dtype=None if dtype in (None, "float32") else getattr(torch, dtype),
            watch=lambda batch: tick(batch.size),
        )


def _contestant(model: Model, module: nn.Module, data: Data, device: str) -> Contestant:
    """A model ready to run. Raises NnoptError where it does not take the data, or gives something else."""
    from nnopt_cli.data import Contestant, Expected
    from nnopt_cli.data.place import as_call
    from nnopt_cli.plugin.data_opening import first_answer

    try:
        outputs, expected = first_answer(data.measured, module, Expected.of(model, module))
        classes = outputs.shape[1] if outputs.dim() > 1 else 1
        if outputs.dim() == 2 and classes != data.task.classes:
            raise NnoptError(f"it gives {classes} outputs, and the first model {data.task.classes}")
    except NnoptError as error:
        raise NnoptError(f"{model.path}: {error.message}", error.hint) from error
    alone = model.arch is None and device != "cpu"  # a program's own devices move with it, a module's do not
    return Contestant(as_call(model.program() if alone else module, device), expected)


def _settings(options: DataOptions, data: Data) -> list[str]:
    """What the data were read with, as one reads it."""
    out = []
    for key in ("val", "val_split", "rows", "limit", "x", "y", "resize", "crop", "normalize"):
        value = plain(getattr(options, key))
        if isinstance(getattr(options, key), Component):
            value = getattr(options, key).spec()
        if value not in (None, "", []):
            shown = ", ".join(value) if isinstance(value, list) else value
            out.append(f"{key.replace('_', '-')} {shown}")
    return out


COMMAND = CommandSpec(
    name="evaluate",
    help="""Measure how good models are on data: loss, metrics, and throughput, side by side.

    The metrics follow from the task: accuracy, top-5, F1, negative log likelihood and calibration error for
    classes; F1, accuracy and average precision for labels; R², squared and absolute error for values.
    Several models see the same batches; how far they disagree is shown, too.

    Examples:
      nnopt evaluate model.pt2 --data test.parquet --normalize imagenet
      nnopt evaluate model.pt --arch net.py:build --data images/ --resize 256 --crop 224 --per-class
      nnopt evaluate dense.pt2 pruned.pt2 --data digits:part=test""",
    panel=LOOK,
    arguments=(Arg("model", "The models: .pt2 files, or weights with --arch.", multiple=True),),
    options=(EvaluateOptions, DataOptions, MemberOptions, ReportOptions, ComputeOptions),
    body=body,
)
