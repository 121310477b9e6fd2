"""`nnopt recipe`: look at a recipe without running it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnopt_cli.commands.common import PROJECT, Arg, CommandSpec, Context
from nnopt_cli.errors import UsageError
from nnopt_cli.plugin.component import option
from nnopt_cli.plugin.options import Options

if TYPE_CHECKING:
    from rich.console import Console

    from nnopt_cli.recipe.recipe import Plan, Recipe


class VariableOptions(Options):
    """The recipe's variables."""

    set_: tuple[str, ...] = option((), help="A variable of the recipe.", metavar="NAME=VALUE")


class ShowOptions(VariableOptions):
    """Where it is shown."""

    save: Path | None = option(None, help="Write it to this file: .yaml, .toml or .json.", metavar="FILE")
    force: bool = option(False, help="Replace the file if it exists.")


def body(context: Context) -> None:
    """`nnopt recipe` alone."""
    raise UsageError("say what to do with a recipe", "nnopt recipe validate FILE, or nnopt recipe show FILE")


def _plans(recipe: Recipe, settings: tuple[str, ...], context: Context) -> list[Plan]:
    from nnopt_cli.commands.followers import FOLLOWERS
    from nnopt_cli.recipe.variables import parse_settings

    values = recipe.runs(parse_settings(settings))
    return [recipe.plan(each, context.registry, FOLLOWERS) for each in values]


def validate(context: Context) -> None:
    """Check every key and value of a recipe; no model or data is read."""
    from nnopt_cli.recipe.recipe import Recipe

    path = context.path("file")
    plans = _plans(Recipe.read(path), context[VariableOptions].set_, context)
    plan = plans[0]
    steps = [each.name for each in plan.first] + [each.method.name for each in plan.passes]
    steps += [each.name for each in plan.last]
    document = {"recipe": str(path), "valid": True, "runs": len(plans), "steps": steps}
    runs = f", {len(plans)} runs" if len(plans) > 1 else ""

    def show(console: Console) -> None:
        console.print(f"{path}: valid: {', '.join(steps)}{runs}", markup=False, soft_wrap=True)

    context.emit(document, show)


def show_body(context: Context) -> None:
    """Write out a recipe with its variables filled in, or a model's record as a recipe."""
    from nnopt_cli.commands.saving import write_text
    from nnopt_cli.recipe.syntax import check_suffix, is_recipe, write_table

    path, wanted = context.path("file"), context[ShowOptions]
    if is_recipe(path):
        from nnopt_cli.recipe.recipe import Recipe

        recipe = Recipe.read(path)
        plans = _plans(recipe, wanted.set_, context)
        tables = [dict(plan.table) for plan in plans]
    else:
        tables = [_of_model(path)]
    if wanted.save is not None:
        check_suffix(wanted.save)
        if len(tables) > 1:
            raise UsageError(
                f"--save {wanted.save}: the variables make {len(tables)} recipes", "Set each to one."
            )
        suffix = wanted.save.suffix.lower()
        write_text(write_table(tables[0], suffix, _comment(path)), wanted.save, force=wanted.force)

    def show(console: Console) -> None:
        from nnopt_cli.report.text import printable

        for table in tables:
            text = write_table(table, ".yaml").rstrip("\n")
            for line in [*(["---"] if len(tables) > 1 else []), *text.split("\n")]:
                console.print(printable(line), markup=False, soft_wrap=True)
        if wanted.save is not None:
            console.print(f"Wrote {printable(str(wanted.save))}", markup=False, soft_wrap=True)

    context.emit(tables[0] if len(tables) == 1 else {"recipes": tables}, show)


def _comment(path: Path) -> str:
    return (
        f"From {path.name}. Read it before you run it: it may name code and files."
        if path.name.isprintable()
        else ""
    )


def _of_model(path: Path) -> dict[str, Any]:
    from nnopt_cli.commands.fused_again import FUSION, was_fused
    from nnopt_cli.commands.repeat import recipe_of
    from nnopt_cli.model.io import load
    from nnopt_cli.plugin.component import plain
    from nnopt_cli.recipe.variables import escape

    model = load(path)
    table: dict[str, Any] = {}
    named = [each.get("path") for each in model.provenance.inputs if isinstance(each, dict)]
    names = [each for each in named if isinstance(each, str)]
    steps: list[Any] = escape(plain(recipe_of(model).table["steps"]))
    if was_fused(model):
        step = {key: value for key, value in steps[0].items() if key not in ("pass", "base")}
        base = {"base": names.pop()} if "base" in steps[0] and names else {}
        steps[0] = {"command": FUSION, "with": names[1:], **step, **base}
    if len(names) == 1 or (names and was_fused(model)):
        table["model"] = names[0]
    return {**table, "steps": steps}


VALIDATE = CommandSpec(
    name="validate",
    help="Check a recipe: every step, key and value, with the variables filled in. Nothing is run.",
    panel="Commands",
    arguments=(Arg("file", "The recipe."),),
    options=(VariableOptions,),
    body=validate,
)
SHOW = CommandSpec(
    name="show",
    help="Write out a recipe with its variables filled in, or what a model's record says was done to it.",
    panel="Commands",
    arguments=(Arg("file", "The recipe, or a model that nnopt made."),),
    options=(ShowOptions,),
    body=show_body,
)
COMMAND = CommandSpec(
    name="recipe",
    help="Look at a recipe: check it, or write it out.",
    panel=PROJECT,
    body=body,
    commands=(VALIDATE, SHOW),
)
