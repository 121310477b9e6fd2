"""What a chain of passes came to, as records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nnopt_cli.commands.common import peak_memory
from nnopt_cli.plugin.component import Component

if TYPE_CHECKING:
    from nnopt_cli.commands.chain import Chained
    from nnopt_cli.plugin.kinds import Pass
    from nnopt_cli.recipe.steps import PassStep
    from nnopt_cli.report.recipe_runs import StepRow
    from nnopt_cli.report.record import Record
    from nnopt_cli.run import Run


def record_of(
    chained: Chained,
    run: Run,
    *,
    command: str,
    options: Mapping[str, Any],
    seconds: float,
    dry_run: bool,
    detailed: bool,
) -> Record:
    """The record of a chain; `detailed` adds what only a report shows."""
    from nnopt_cli.report.build import build
    from nnopt_cli.report.details import with_details

    record = build(
        command=command,
        options=options,
        settings=said(chained.steps[0].link.method),
        before=chained.before,
        after=chained.after,
        saved=chained.saved,
        run=run,
        seconds=seconds,
        peak_bytes=peak_memory(run),
        dry_run=dry_run,
        measured=chained.measured,
    )
    if len(chained.steps) > 1:
        from nnopt_cli.report.settings import described

        each = [(step.link.method, described(said(step.link.method))) for step in chained.steps]
        shown = [": ".join(filter(None, (method.name, ", ".join(words)))) for method, words in each]
        record = record.model_copy(update={"settings": shown})
    return with_details(record, chained.before, chained.after) if detailed else record


def recipe_record(
    chained: Chained, run: Run, passes: Sequence[PassStep], *, seconds: float, dry_run: bool, detailed: bool
) -> tuple[Record, list[StepRow]]:
    """The record of a recipe's passes together, and a row for each of them."""
    from nnopt_cli.report.recipe_runs import StepRow
    from nnopt_cli.report.settings import described

    record = record_of(
        chained,
        run,
        command="run",
        options={"steps": [dict(step.table) for step in passes]},
        seconds=seconds,
        dry_run=dry_run,
        detailed=detailed,
    )
    rows = [
        StepRow(
            step=step.link.method.name,
            settings=described(said(step.link.method)),
            seconds=step.seconds,
            resumed=step.resumed,
        )
        for step in chained.steps
    ]
    return record, rows


def said(method: Pass) -> dict[str, Any]:
    """What the summary says of the options: its components in any case, of the rest what is no default."""
    table = method.table()
    values = {key: getattr(method, key) for key in method.options()}
    return {
        key: value.spec() if isinstance(value, Component) else table[key]
        for key, value in values.items()
        if isinstance(value, Component) or key in table
    }
