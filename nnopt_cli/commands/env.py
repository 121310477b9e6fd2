"""`nnopt env`: what nnopt runs on."""

from __future__ import annotations

from nnopt_cli.commands.common import PROJECT, CommandSpec, Context


def body(context: Context) -> None:
    """Look around (this imports torch, which knows the devices) and show it."""
    import os

    from nnopt_cli.report.environment import environment, render

    record = environment(context.registry, os.environ)
    context.emit(record.model_dump(mode="json"), lambda console: render(record, console))


COMMAND = CommandSpec(
    name="env",
    help="Show versions, machine, devices and plugins, to paste into a bug report.",
    panel=PROJECT,
    body=body,
)
