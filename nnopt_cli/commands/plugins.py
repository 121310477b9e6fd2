"""`nnopt plugins`: what is installed, what each provides, what is broken and why."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnopt_cli.commands.common import PROJECT, Arg, CommandSpec, Context
from nnopt_cli.errors import FAILED
from nnopt_cli.plugin.component import option
from nnopt_cli.plugin.fields import schema_of
from nnopt_cli.plugin.manager import Wanted
from nnopt_cli.plugin.options import Options

if TYPE_CHECKING:
    from rich.console import Console

    from nnopt_cli.plugin.component import Component
    from nnopt_cli.plugin.registry import Plugin


def body(context: Context) -> int:
    """Show every installed plugin; the exit code is 1 in strict mode if one is broken."""
    found = context.registry.plugins
    context.emit({"plugins": [describe(plugin) for plugin in found]}, lambda console: show(found, console))
    return FAILED if context.registry.broken() and Wanted.read(os.environ).strict else 0


def describe(plugin: Plugin) -> dict[str, Any]:
    """A plugin as JSON-able data, each component with the schema of its options."""
    return {
        "name": plugin.name,
        "distribution": plugin.distribution,
        "version": plugin.version,
        "module": plugin.module,
        "builtin": plugin.builtin,
        "state": plugin.state,
        "why": plugin.why,
        "slow": list(plugin.heavy),
        "seconds": round(plugin.seconds, 4),
        "components": [_component(cls) for cls in plugin.components],
    }


def _component(cls: type[Component]) -> dict[str, Any]:
    return {
        "kind": cls.kind,
        "name": cls.name,
        "help": inspect.cleandoc(cls.__dict__.get("__doc__") or ""),
        "options": _schema(cls),
    }


def _schema(cls: type[Component]) -> Mapping[str, Any]:
    from pydantic.errors import PydanticInvalidForJsonSchema, PydanticSchemaGenerationError

    try:
        return schema_of(cls)
    except (PydanticInvalidForJsonSchema, PydanticSchemaGenerationError) as error:
        return {"type": "object", "$comment": f"the type of an option has no JSON schema: {error}"}


def show(plugins: list[Plugin], console: Console) -> None:
    """The table on a terminal."""
    from rich.table import Table
    from rich.text import Text

    from nnopt_cli.report.text import printable

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for title in ("plugin", "package", "version", "provides", "state"):
        table.add_column(title, overflow="fold")
    for plugin in plugins:
        cells = (plugin.name, plugin.distribution, plugin.version, _provides(plugin))
        style = {"loaded": "", "broken": "red", "off": "dim"}[plugin.state]
        table.add_row(*(Text(printable(cell)) for cell in cells), Text(printable(_state(plugin)), style))
    console.print(table)


def _provides(plugin: Plugin) -> str:
    kinds: dict[str, list[str]] = {}
    for cls in plugin.components:
        kinds.setdefault(cls.kind, []).append(cls.name)
    return "; ".join(f"{kind} {', '.join(names)}" for kind, names in kinds.items())


def _state(plugin: Plugin) -> str:
    if plugin.heavy and not plugin.why:
        return f"slow: imports {', '.join(plugin.heavy)} at its top"
    return f"{plugin.state}: {plugin.why}" if plugin.why else plugin.state


class NewOptions(Options):
    """Where the new package goes."""

    dir: Path | None = option(None, help="The folder to make; by default NAME, here.", metavar="FOLDER")


def new_body(context: Context) -> None:
    """Write the package, and say what to type next."""
    from nnopt_cli.plugin.scaffold import create, plan

    names = plan(context.arguments["name"], context.registry)
    folder = context[NewOptions].dir or Path(context.arguments["name"])
    files = create(names, folder)

    def told(console: Console) -> None:
        lines = [
            f"Wrote {folder}:",
            *(f"  {path}" for path in files),
            "",
            "Try it:",
            f"  pip install -e {folder}",
        ]
        lines += [f"  pytest {folder}", f"  nnopt {names.command} --help"]
        console.print("\n".join(lines), markup=False, soft_wrap=True)

    document = {
        "folder": str(folder),
        "files": files,
        "distribution": names.distribution,
        "pass": names.command,
    }
    context.emit(document, told)


NEW = CommandSpec(
    name="new",
    help="Start a plugin: a package that installs, passes its own tests, and whose pass is a command.",
    panel="Commands",
    arguments=(Arg("name", "Name of the package, e.g. nnopt-clip; its pass is called clip."),),
    options=(NewOptions,),
    body=new_body,
)

COMMAND = CommandSpec(
    name="plugins",
    help="""List the installed plugins: what each provides, and what is broken and why.

    NNOPT_PLUGINS=a,b loads only these beside the built-in ones, and none if it is empty. --no-plugin NAME
    leaves one out before it is imported. NNOPT_STRICT_PLUGINS=1 makes a broken plugin an error.""",
    panel=PROJECT,
    body=body,
    commands=(NEW,),
    lenient=True,
)
