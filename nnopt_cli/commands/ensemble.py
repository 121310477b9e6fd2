"""`nnopt ensemble`: several models become one."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnopt_cli.commands.chain import check_output, default_output
from nnopt_cli.commands.common import PASSES, Arg, CommandSpec, Context, peak_memory
from nnopt_cli.commands.fusing import EnsembleOptions, asked_for, fuse, open_members, row_of
from nnopt_cli.plugin.component import Component
from nnopt_cli.plugin.data import DataOptions
from nnopt_cli.plugin.options import ComputeOptions, MemberOptions, OutputOptions, ReportOptions

if TYPE_CHECKING:
    from nnopt_cli.model.io import Saved
    from nnopt_cli.model.model import Model
    from nnopt_cli.plugin.fusion import Members
    from nnopt_cli.report.evaluation import Evaluated
    from nnopt_cli.run import Run

SUFFIX = "fused"


def body(context: Context) -> None:
    """Open and check all members, fuse them, measure them where there is data, and save."""
    from nnopt_cli.model.blended import sources
    from nnopt_cli.model.io import save
    from nnopt_cli.report.fusion import fused_record
    from nnopt_cli.report.fusion_console import render

    start = time.perf_counter()
    wanted, run, out = context[EnsembleOptions], context.run, context[OutputOptions]
    asked = asked_for(context)
    opened = open_members(context)
    path = out.output or default_output(opened.models[0].path, SUFFIX)
    if not out.dry_run and (out.output or asked.space == "weights"):
        check_output(path, out.force)
    made = fuse(asked, opened, context)
    method, members, fused, everyone = made.method, made.members, made.fused, made.everyone
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
        peak_bytes=peak_memory(run),
        dry_run=out.dry_run,
    )
    context.emit(record.model_dump(mode="json"), lambda console: render(record, console, run.verbose), record)


def _results(run: Run, evaluated: Evaluated | None) -> dict[str, Any]:
    """What the output's own record says of it."""
    from nnopt_cli.report.fusion import LIKENESS

    facts = {name: fact for name, fact in run.facts.items() if name != LIKENESS}
    return facts if evaluated is None else {**facts, "metrics": evaluated.models[-1].metrics}


def _settings(members: Members, wanted: EnsembleOptions) -> list[str]:
    shown = [f"weights {row_of(*given)}" for given in members.weighting.given()]
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
    makes=True,
)
