"""Builds the command-line application; the one place where errors become messages and exit codes."""

from __future__ import annotations

import gc
import inspect
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.markup import escape

from nnopt_cli import __version__
from nnopt_cli.commands import (
    analyze,
    bench,
    compare,
    convert,
    ensemble,
    env,
    evaluate,
    export,
    plugins,
    recipe,
    verify,
)
from nnopt_cli.commands import inspect as inspect_command
from nnopt_cli.commands import run as run_command
from nnopt_cli.commands.common import Arg, CommandSpec, Context, make_run
from nnopt_cli.commands.helptext import first_sentence, help_of
from nnopt_cli.commands.passes import pass_commands
from nnopt_cli.commands.saving import check_report
from nnopt_cli.early import Early
from nnopt_cli.failure import failing, strict_failure
from nnopt_cli.plugin.blame import blaming
from nnopt_cli.plugin.flags import gather, parameters
from nnopt_cli.plugin.manager import Wanted, load_plugins
from nnopt_cli.plugin.options import CommonOptions, Options
from nnopt_cli.plugin.registry import Registry

COMMANDS = (
    ensemble.COMMAND,
    run_command.COMMAND,
    convert.COMMAND,
    export.COMMAND,
    inspect_command.COMMAND,
    compare.COMMAND,
    evaluate.COMMAND,
    verify.COMMAND,
    analyze.COMMAND,
    bench.COMMAND,
    recipe.COMMAND,
    plugins.COMMAND,
    env.COMMAND,
)
ABOUT = """Make trained PyTorch models smaller, faster or better.

A model goes in as a file, a pass changes it, and a new file comes out beside it; the input is never
changed. `nnopt COMMAND --help` explains a command."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (default: this process's) and return the exit code."""
    early = Early.read(sys.argv[1:] if argv is None else argv)
    with failing(early) as outcome:
        registry = load_plugins(early.wanted(), [spec.name for spec in COMMANDS])
        early.warn(registry)
        command = typer.main.get_command(build_app(registry, early.wanted(), outcome.give))
        if not gc.isenabled():  # the process is the command's own: what is there by now stays
            gc.freeze()
            gc.enable()
        code = command.main(early.rest or ["--help"], prog_name="nnopt", standalone_mode=False)
        outcome.end(code)
    return outcome.code


def build_app(registry: Registry, wanted: Wanted, give: Callable[[object], None]) -> typer.Typer:
    """The Typer application.

    Args:
        registry: the plugins; each pass becomes a command.
        wanted: how plugins were asked for; broken ones end a command in strict mode.
        give: takes the document of a command that ran with `--json`.
    """
    app = typer.Typer(rich_markup_mode="rich", pretty_exceptions_enable=False)
    app.callback(help=help_of(ABOUT))(_root)
    for spec in (*pass_commands(registry), *COMMANDS):
        _add(app, spec, registry, wanted, give)
    return app


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"nnopt {__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", is_eager=True, callback=_show_version)
    ] = False,
    no_plugin: Annotated[
        list[str] | None,  # taken out before plugins load; declared here to be in --help
        typer.Option("--no-plugin", metavar="NAME", help="Do not load this plugin; goes anywhere."),
    ] = None,
) -> None:
    """Options of `nnopt` itself."""


def _add(
    app: typer.Typer, spec: CommandSpec, registry: Registry, wanted: Wanted, give: Callable[[object], None]
) -> None:
    run = _callback(spec, registry, wanted, give)
    explained, listed = help_of(spec.help), first_sentence(spec.help)
    if not spec.commands:
        app.command(spec.name, help=explained, short_help=listed, rich_help_panel=spec.panel)(run)
        return
    group = typer.Typer(rich_markup_mode="rich")
    group.callback(invoke_without_command=True)(run)
    for inner in spec.commands:
        _add(group, inner, registry, wanted, give)
    app.add_typer(group, name=spec.name, help=explained, short_help=listed, rich_help_panel=spec.panel)


def _callback(
    spec: CommandSpec, registry: Registry, wanted: Wanted, give: Callable[[object], None]
) -> Callable[..., int]:
    models: tuple[type[BaseModel], ...] = (*spec.models(registry), CommonOptions)

    def run(typer_context: typer.Context, **values: Any) -> int:
        if typer_context.invoked_subcommand:
            return 0
        if not spec.lenient:
            strict_failure(registry, wanted)
        options = {model: gather(model, values, registry) for model in models}
        messages = Console(stderr=True, highlight=False)
        arguments = {arg.name: _argument(arg, values[arg.name]) for arg in spec.arguments}
        run = make_run(options, messages)
        run.registry = registry
        context = Context(arguments, options, registry, run, Console(highlight=False))
        if context.report is not None:
            check_report(context.report)  # before the work, not after it
        with blaming(registry):
            code = spec.body(context)
        if context[CommonOptions].json_:
            give(context.document)
        return code or 0

    run.__signature__ = inspect.Signature(_signature(spec, models, registry))  # type: ignore[attr-defined]
    run.__annotations__ = {}
    return run


def _signature(
    spec: CommandSpec, models: Iterable[type[BaseModel]], registry: Registry
) -> list[inspect.Parameter]:
    kind = inspect.Parameter.KEYWORD_ONLY
    found = [inspect.Parameter("typer_context", kind, annotation=typer.Context)]
    found += [_positional(arg) for arg in spec.arguments]
    # `--help` shows boxes in the order of their first flag: a method's own options before shared ones
    for model in sorted(models, key=lambda model: issubclass(model, Options) and model.panel != "Options"):
        found += parameters(model, registry)
    return found


def _positional(arg: Arg) -> inspect.Parameter:
    described = typer.Argument(help=escape(arg.help), metavar=arg.name.upper(), show_default=False)
    default = inspect.Parameter.empty if arg.required else None
    base: Any = list[str] if arg.multiple else str
    annotation = Annotated[base, described]
    return inspect.Parameter(arg.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _argument(arg: Arg, value: Any) -> Any:
    return tuple(value or ()) if arg.multiple else value
