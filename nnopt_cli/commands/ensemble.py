"""`nnopt ensemble`: several models become one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from nnopt_cli.commands.chain import check_output, default_output, peak_memory
from nnopt_cli.commands.common import PASSES, Arg, CommandSpec, Context, device_of
from nnopt_cli.errors import NnoptError, UsageError
from nnopt_cli.plugin.component import Component, option
from nnopt_cli.plugin.data import DataOptions
from nnopt_cli.plugin.fusion import Alignment, Fusion, Integers, Members, Weighting
from nnopt_cli.plugin.options import (
    ComputeOptions,
    MemberOptions,
    ModelOptions,
    Options,
    OutputOptions,
    ReportOptions,
)

if TYPE_CHECKING:
    from nnopt_cli.model.io import Saved
    from nnopt_cli.model.model import Model
    from nnopt_cli.report.evaluation import Evaluated
    from nnopt_cli.run import Run

SUFFIX = "fused"


class EnsembleOptions(Options):
    """How several models become one."""

    method: Fusion | None = option(None, help="How they are fused; by default auto: by what they are.")
    weights: tuple[str, ...] = option(
        (),
        help="How much each member counts: 0.7,0.3; or for some tensors only: 'layer4.*=0.5,0.5'.",
        metavar="[GLOB=]A,B,…",
    )
    base: Path | None = option(
        None, help="The ancestor that the members were fine-tuned from.", metavar="MODEL"
    )
    align: Alignment | None = option(
        None, help="Put the units of networks that were trained apart into one order first."
    )
    integers: Integers = option("max", help="Which value an integer tensor gets where members differ.")
    share_trunk: str | None = option(
        None,
        help="Fusing outputs: average so many of the lowest layers and compute them once; auto: as many as "
        "--data allow.",
        metavar="N|auto",
    )


def body(context: Context) -> None:
    """Open and check all members, fuse them, measure them where there is data, and save."""
    from nnopt_cli.model.blended import sources
    from nnopt_cli.model.io import save
    from nnopt_cli.report.fusion import fused_record
    from nnopt_cli.report.fusion_console import render

    start = time.perf_counter()
    wanted, run, out = context[EnsembleOptions], context.run, context[OutputOptions]
    asked = wanted.method or context.registry.build("fusion", "auto")
    assert isinstance(asked, Fusion)
    members = _members(context, wanted)
    path = out.output or default_output(members.models[0].path, SUFFIX)
    if not out.dry_run and (out.output or asked.space == "weights"):
        check_output(path, out.force)
    members = replace(members, data=_opened_data(context, asked, wanted.align, members))
    if wanted.align is not None:
        members = _aligned(asked, wanted.align, members, run)
    method, members = asked.chosen(members, run)
    _check(method, members, wanted)
    fused = method.fuse(members, run)
    if not hasattr(fused, "weights"):
        raise NnoptError(f"the fusion {method.name!r} returned {type(fused).__name__}, not a Model")
    everyone = (*members.models, *([members.base] if members.base else ()))
    files = tuple(path for model in everyone for path in (model.path, *model.container.files))
    fused = replace(
        fused,
        provenance=_provenance(method, members, run),
        container=replace(fused.container, files=files),  # none of which may be written to
    )
    evaluated = _evaluated(context, members, fused, start)
    if fused.structure_changed and not out.output:
        path = default_output(members.models[0].path, SUFFIX, ".pt2")
    saved = save(
        fused,
        None if out.dry_run else path,
        run=run,
        force=out.force,
        results=_results(run, evaluated),
        sources=lambda tallies: sources(fused, everyone, tallies),
    )
    record = fused_record(
        method=method.spec(),
        asked=asked.spec(),
        settings=_settings(members, wanted),
        models=everyone,
        base=members.base,
        fused=fused,
        saved=saved,
        evaluated=None if evaluated is None else _named(evaluated, saved, path),
        run=run,
        seconds=time.perf_counter() - start,
        peak_bytes=peak_memory(),
        dry_run=out.dry_run,
    )
    context.emit(record.model_dump(mode="json"), lambda console: render(record, console, run.verbose), record)


def _members(context: Context, wanted: EnsembleOptions) -> Members:
    """The members and the base, opened and not yet read."""
    from nnopt_cli.plugin.opening import open_model

    texts: Sequence[str] = context.arguments["model"]
    if len(texts) < 2:
        raise UsageError("one model is no ensemble", "Name two or more: nnopt ensemble a.pt b.pt")
    options = context[MemberOptions]
    models = [_opened(Path(text), options.of(place, len(texts)), context) for place, text in enumerate(texts)]
    for place, model in enumerate(models):
        if model.path.resolve() in [other.path.resolve() for other in models[:place]]:
            context.run.note(f"{model.path} is named twice, and counts twice.")
    base = None
    if wanted.base is not None:
        base = open_model(wanted.base, ModelOptions(key=options.key), context.registry)
    weighting = _weighting(wanted.weights, models)
    trunk = _trunk(wanted.share_trunk)
    return Members(tuple(models), weighting, base, None, wanted.integers, None, trunk)


def _opened(path: Path, options: ModelOptions, context: Context) -> Model:
    """One member; --arch and --input are for those that hold weights only."""
    from nnopt_cli.plugin.opening import load, open_model

    alone = load(path, key=options.key)
    if alone.rung == "graph" and (options.arch or options.input):
        return load(path, key=options.key, operators=options.operators)
    return open_model(path, options, context.registry)


def _trunk(text: str | None) -> int | Literal["auto"] | None:
    if text is None or text == "auto":
        return "auto" if text else None
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"--share-trunk {text}: is neither a number of layers nor auto")
    return int(text)


def _weighting(texts: Sequence[str], models: Sequence[Model]) -> Weighting:
    """`--weights`. Raises UsageError for other than one number per member, or a glob that matches nothing."""
    from nnopt_cli.model.naming import match

    everywhere: tuple[float, ...] | None = None
    patterns = []
    for text in texts:
        glob, equals, row = text.rpartition("=")
        try:
            numbers = tuple(float(part) for part in row.split(","))
        except ValueError:
            raise UsageError(f"--weights {text!r}: is not numbers with commas between") from None
        if len(numbers) != len(models):
            raise UsageError(
                f"--weights {text}: has {len(numbers)} numbers, and there are {len(models)} members"
            )
        if not all(abs(number) < float("inf") for number in numbers):
            raise UsageError(f"--weights {text}: is not finite")
        if equals:
            match(models[0].weights, glob)
            patterns.append((glob, numbers))
        elif everywhere is not None:
            raise UsageError("--weights is given twice for all tensors", "Give others as 'GLOB=A,B'.")
        else:
            everywhere = numbers
    return Weighting(everywhere, tuple(patterns))


def _opened_data(context: Context, method: Fusion, align: Alignment | None, members: Members) -> Any:
    options = context[DataOptions]
    for each in (method, align):
        if each is not None and each.needs_data and options.data is None:
            raise UsageError(f"{each.name} needs data", "Add --data FILE (or --data digits to try it out).")
    if options.data is None:
        return None
    context.run.device = device_of(context[ComputeOptions].device, context.run.device)
    return options.open(context.run, members.models[0])


def _aligned(method: Fusion, align: Alignment, members: Members, run: Run) -> Members:
    """The members with their units in one order, once it is known that this is of use."""
    from nnopt_cli.model.alike import check_alike

    if method.space == "outputs" and members.share_trunk is None:
        raise UsageError(f"--align is for averaging, and --method {method.name} leaves weights alone")
    check_alike(members.models)
    for model in members.models:
        model.require(align.needs)
    return replace(align.align(members, run), aligned=align)


def _check(method: Fusion, members: Members, wanted: EnsembleOptions) -> None:
    """All that can be known from headers."""
    from nnopt_cli.model.alike import check_alike

    names = f"--method {method.name}"
    if method.most is not None and len(members.models) > method.most:
        raise UsageError(
            f"{names} fuses {method.most} models, and there are {len(members.models)}",
            "karcher does the like for more than two." if method.name == "slerp" else None,
        )
    if method.base == "required" and members.base is None:
        raise UsageError(
            f"{names} works on what fine-tuning changed",
            "Name the model that all started from: --base MODEL.",
        )
    if method.base == "no" and members.base is not None:
        raise UsageError(f"{names} has no use for --base", "task-arithmetic, ties and model-stock have.")
    if method.needs_data and members.data is None:
        raise UsageError(f"{names} needs data", "Add --data FILE (or --data digits to try it out).")
    _check_sums(method, members)
    if method.space == "weights":
        if wanted.share_trunk is not None:
            raise UsageError(f"--share-trunk is for fused outputs, and {names} averages weights")
        check_alike([*members.models, *([members.base] if members.base else [])])
    for model in members.models:
        model.require(method.needs)
    method.check(members)


def _check_sums(method: Fusion, members: Members) -> None:
    for glob, numbers in members.weighting.given() if method.convex else ():
        total = sum(numbers)
        if abs(total - 1) <= 1e-6:
            continue
        given = ("" if glob == "*" else f"{glob}=") + ",".join(f"{number:g}" for number in numbers)
        scaled = ",".join(f"{number / total:.6g}" for number in numbers) if total > 0 else ""
        raise UsageError(
            f"--weights {given}: sums to {total:g}, not to one",
            f"In the same proportions: {scaled}." if scaled else "Weights of an average sum to one.",
        )


def _provenance(method: Fusion, members: Members, run: Run) -> Any:
    """A record that begins with the fusion: the members' own histories lie behind their hashes."""
    from nnopt_cli.model.provenance import Provenance

    step: dict[str, Any] = {"pass": "ensemble", "method": method.spec()}
    if members.weighting.given():
        step["weights"] = [_row(glob, numbers) for glob, numbers in members.weighting.given()]
    if members.aligned is not None:
        step["align"] = members.aligned.spec()
    if members.base is not None:
        step["base"] = members.base.path.name
    if members.integers != "max":
        step["integers"] = members.integers
    if members.share_trunk is not None:
        step["share_trunk"] = members.share_trunk
    return Provenance().then({**step, **({"seed": run.seed} if run.seed else {})})


def _results(run: Run, evaluated: Evaluated | None) -> dict[str, Any]:
    """What the output's own record says of it."""
    from nnopt_cli.report.fusion import LIKENESS

    facts = {name: fact for name, fact in run.facts.items() if name != LIKENESS}
    return facts if evaluated is None else {**facts, "metrics": evaluated.models[-1].metrics}


def _row(glob: str, numbers: Sequence[float]) -> str:
    return ("" if glob == "*" else f"{glob}=") + ",".join(f"{number:g}" for number in numbers)


def _settings(members: Members, wanted: EnsembleOptions) -> list[str]:
    shown = [f"weights {_row(*given)}" for given in members.weighting.given()]
    shown += [f"base {members.base.path.name}"] if members.base else []
    shown += [f"aligned by {members.aligned.spec()}"] if members.aligned else []
    shown += [f"integers {members.integers}"] if members.integers != "max" else []
    return shown + ([f"share trunk {wanted.share_trunk}"] if wanted.share_trunk else [])


def _evaluated(context: Context, members: Members, fused: Model, start: float) -> Evaluated | None:
    """Members and result side by side, on the rows that are kept for the report."""
    if members.data is None:
        return None
    from nnopt_cli.commands.evaluate import compared
    from nnopt_cli.report.evaluation import evaluated

    models = [*members.models, fused]
    found = compared(context.run, models, members.data)
    loss = members.data.loss
    return evaluated(
        models,
        found,
        members.data.measured,
        members.data.task,
        settings=[],
        loss=loss.spec() if isinstance(loss, Component) else str(loss),
        gate=members.data.gate.name,
        larger_is_better={metric.name: metric.larger_is_better for metric in members.data.metrics},
        notes=[],
        seconds=time.perf_counter() - start,
        device=context.run.device,
    )


def _named(found: Evaluated, saved: Saved, path: Path) -> Evaluated:
    """The result under its own name and size: it was measured before it was written."""
    last = found.models[-1].model_copy(update={"path": str(path), "bytes": saved.bytes})
    return found.model_copy(update={"models": [*found.models[:-1], last]})


COMMAND = CommandSpec(
    name="ensemble",
    help="""Fuse several models into one: by their weights, or by their outputs.

    By default it looks at them: fine-tunes of one ancestor are averaged; networks that were trained apart, or
    differ in architecture, become one graph that holds all and combines their outputs. The choice and
    its evidence are printed.

    Examples:
      nnopt ensemble a.pt b.pt
      nnopt ensemble a.safetensors b.safetensors --base start.safetensors --method ties
      nnopt ensemble a.pt b.pt c.pt --arch net.py:build --data val.parquet --method soup
      nnopt ensemble a.pt2 b.pt2 --method mean -o both.pt2""",
    panel=PASSES,
    arguments=(Arg("model", "Two or more models.", multiple=True),),
    options=(EnsembleOptions, DataOptions, MemberOptions, OutputOptions, ReportOptions, ComputeOptions),
    body=body,
)
