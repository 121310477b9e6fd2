"""`nnopt analyze`: which layers a metric depends on."""

from __future__ import annotations

import time

from pydantic import field_validator

from nnopt_cli.commands.common import LOOK, Arg, CommandSpec, Context
from nnopt_cli.errors import NnoptError
from nnopt_cli.plugin.component import option
from nnopt_cli.plugin.data import DataOptions
from nnopt_cli.plugin.kinds import Criterion
from nnopt_cli.plugin.options import ComputeOptions, ModelOptions, Options, ReportOptions


class AnalyzeOptions(Options):
    """What is tried."""

    criterion: Criterion | None = option(None, help="How importance is scored; magnitude if left out.")
    ratios: str = option(
        "0.25,0.5,0.75",
        help="Which fractions of a group's units to remove, with commas between.",
        metavar="FRACTION,…",
    )

    @field_validator("ratios")
    @classmethod
    def _fractions(cls, text: str) -> str:
        for part in text.split(","):
            if not 0 < float(part) < 1:
                raise ValueError("each must be between 0 and 1")
        return text


def body(context: Context) -> None:
    """Prune each group alone, measure, and show what the metric loses."""
    from nnopt_cli import __version__
    from nnopt_cli.data import evidence, score
    from nnopt_cli.graph import Units, analyse, groups, sensitivities
    from nnopt_cli.plugin.opening import open_model
    from nnopt_cli.report.analysis import Analysis, GroupSensitivity, render

    start = time.perf_counter()
    run, wanted = context.run, context[AnalyzeOptions]
    model = open_model(context.path("model"), context[ModelOptions], context.registry)
    model.require("graph")
    data = context[DataOptions].open(run, model)
    criterion = wanted.criterion or context.registry.build("criterion", "magnitude")
    assert isinstance(criterion, Criterion)
    program, ratios = model.program(), [float(part) for part in wanted.ratios.split(",")]
    coupling = analyse(program)
    sign = 1 if data.gate.larger_is_better else -1
    dense = score(program, data, run)
    known = evidence(program, coupling, data if criterion.needs_data else None, run)
    found = [
        GroupSensitivity(
            layer=group.name,
            units=len(group.classes),
            heads=group.heads,
            metric=[sign * value for value in values],
            loses=dense - min(values),
        )
        for group, values in sensitivities(
            program,
            coupling,
            [(group, criterion.score_units(Units(coupling, group, known))) for group in groups(coupling)],
            ratios,
            lambda each: score(each, data, run),
        )
    ]
    if not found:
        raise NnoptError(f"{model.path}: the graph has no group of channels or heads that can go")
    record = Analysis(
        model=str(model.path),
        metric=data.gate.name,
        larger_is_better=data.gate.larger_is_better,
        dense=sign * dense,
        samples=data.measured.size or 0,
        criterion=criterion.spec(),
        ratios=ratios,
        groups=found,
        notes=[*model.notes, *run.notes],
        seconds=time.perf_counter() - start,
        version=__version__,
    )
    context.emit(record.model_dump(mode="json"), lambda console: render(record, console), record)


COMMAND = CommandSpec(
    name="analyze",
    help="""Show which layers a metric depends on: each group of channels or heads is pruned alone.

    What loses little can be pruned harder: `nnopt prune --sparsity 0.5 --sparsity 'layer4.*=0.8'`.

    Examples:
      nnopt analyze model.pt2 --data val.parquet --limit 1000
      nnopt analyze model.pt2 --data val.npz --ratios 0.5,0.9 --criterion taylor""",
    panel=LOOK,
    arguments=(Arg("model", "The model: a .pt2, or weights with --arch and --input."),),
    options=(AnalyzeOptions, ModelOptions, DataOptions, ReportOptions, ComputeOptions),
    body=body,
)
