"""`page`: a record as one self-contained HTML page; it shows what the record holds and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nnopt_cli.report.analysis import Analysis
from nnopt_cli.report.bench import Bench
from nnopt_cli.report.comparison import Comparison
from nnopt_cli.report.evaluation import Evaluated
from nnopt_cli.report.exported import Exported
from nnopt_cli.report.fusion import Fused
from nnopt_cli.report.html_export import export, verification
from nnopt_cli.report.html_fusion import fusion
from nnopt_cli.report.html_inspection import comparison, inspection
from nnopt_cli.report.html_measures import analysis, bench, evaluation
from nnopt_cli.report.html_page import Sheet, frame, heading, section, table, text
from nnopt_cli.report.html_pass import changed
from nnopt_cli.report.html_runs import runs
from nnopt_cli.report.inspection import Inspection
from nnopt_cli.report.recipe_runs import RecipeRuns
from nnopt_cli.report.record import Record, Row
from nnopt_cli.report.verified import Verified

_COMMANDS: dict[str, type[Row]] = {
    "ensemble": Fused,
    "evaluate": Evaluated,
    "analyze": Analysis,
    "bench": Bench,
    "inspect": Inspection,
    "compare": Comparison,
    "export": Exported,
    "verify": Verified,
}


def page(record: Row) -> str:
    """The page of a record of any command."""
    from nnopt_cli import __version__

    made = sheet(record)
    version = getattr(record, "version", __version__)
    return frame(
        f"{made.command} {made.what}",
        heading(made.command, made.what, made.chips),
        made.parts,
        f"nnopt {version}",
    )


def sheet(record: Row) -> Sheet:
    """The contents of a record's page."""
    match record:
        case Record():
            return changed(record)
        case RecipeRuns():
            return runs(record, result_sheet)
        case Fused():
            return fusion(record)
        case Evaluated():
            return evaluation(record)
        case Analysis():
            return analysis(record)
        case Bench():
            return bench(record)
        case Inspection():
            return inspection(record)
        case Comparison():
            return comparison(record)
        case Exported():
            return export(record)
        case Verified():
            return verification(record)
    return _plain(type(record).__name__.lower(), record.model_dump(mode="json"))


def result_sheet(command: str, result: Mapping[str, Any]) -> Sheet:
    """The contents for what a command in a recipe gave."""
    known = _COMMANDS.get(command)
    return sheet(known.model_validate(result)) if known else _plain(command, result)


def _plain(command: str, values: Mapping[str, Any]) -> Sheet:
    """Any record: its figures as one table, its lists of tables as tables."""
    single = [(k, v) for k, v in values.items() if not isinstance(v, (list, Mapping)) and v is not None]
    parts = [table(("", ""), [(text(k.replace("_", " ")), text(v)) for k, v in single])]
    for key, value in values.items():
        if isinstance(value, list) and value and all(isinstance(row, Mapping) for row in value):
            names = list(dict.fromkeys(name for row in value for name in row))
            rows = [tuple(text("" if row.get(n) is None else row[n]) for n in names) for row in value]
            parts.append(section(key.replace("_", " ").capitalize(), table(names, rows)))
        elif isinstance(value, Mapping) and value:
            rows = [(text(name), text(each)) for name, each in value.items()]
            parts.append(section(key.replace("_", " ").capitalize(), table(("", ""), rows)))
        elif isinstance(value, list) and value:
            items = "".join(f"<li>{text(each)}</li>" for each in value)
            parts.append(section(key.replace("_", " ").capitalize(), f"<ul>{items}</ul>"))
    return Sheet(command, "", (), parts)
