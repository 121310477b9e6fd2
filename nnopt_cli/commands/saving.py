"""What a command writes beside its result: the recipe of `--save-recipe`, the page of `--report`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nnopt_cli.errors import NnoptError
from nnopt_cli.plugin.options import ComputeOptions, ModelOptions, OutputOptions, RecipeOptions

if TYPE_CHECKING:
    from nnopt_cli.commands.common import Context
    from nnopt_cli.plugin.kinds import Pass
    from nnopt_cli.report.record import Row


def check_report(path: Path) -> None:
    """Refuse, before any work, a report that could not be written or would replace something else."""
    from nnopt_cli.errors import UsageError
    from nnopt_cli.formats.target import check_target
    from nnopt_cli.report.html_page import MARK

    if path.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"--report {path}: a report is a page", "Name it NAME.html.")
    target = check_target(path, folder=False, force=True, inputs=())
    if target.place.exists():
        with target.place.open("rb") as file:
            if MARK.encode() not in file.read(200):
                message = f"{path}: already exists, and is no report of nnopt's"
                raise NnoptError(message, "Choose another name.")


def save_report(record: Row, path: Path) -> None:
    """Write `record` as a page, whole or not at all. Raises NnoptError."""
    from nnopt_cli.report.html import page

    write_text(page(record), path, force=True)


def save_recipe(context: Context, method: Pass, *, dry_run: bool = False) -> None:
    """Write the recipe that `--save-recipe` asks for; with `dry_run` only check that it can be."""
    path = context[RecipeOptions].save_recipe
    if path is None:
        return
    from nnopt_cli import __version__
    from nnopt_cli.commands.chain import check_output
    from nnopt_cli.formats.target import check_target
    from nnopt_cli.recipe.recipe import table_of
    from nnopt_cli.recipe.syntax import check_suffix, write_table

    out, model = context[OutputOptions], context.arguments["model"]
    check_suffix(path)
    check_output(path, out.force)
    check_target(path, folder=False, force=out.force, inputs=())
    if dry_run:
        return
    source = None if model is None else context.path("model")
    table = table_of(source, context[ModelOptions], context[ComputeOptions], out.output, method)
    comment = f"Written by nnopt {__version__}. `nnopt run` repeats it; paths are as they were typed."
    write_text(write_table(table, path.suffix.lower(), comment), path, force=out.force)


def write_text(text: str, path: Path, *, force: bool) -> None:
    """Write a small file atomically. Raises NnoptError: it exists, or the disk is full."""
    from nnopt_cli.formats.atomic import new_file
    from nnopt_cli.formats.target import check_target

    data = text.encode("utf-8", "backslashreplace")
    with new_file(check_target(path, folder=False, force=force, inputs=()), len(data)) as file:
        file.write_at(data, 0)
