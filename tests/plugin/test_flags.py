"""Typed options to flags: what `--help` shows, what reaches pydantic, what clashes."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Annotated, Literal

import pytest
import typer
from typer.testing import CliRunner

from nnopt_cli import Component, Model, Pass, Run, TensorFilter, UsageError, option
from nnopt_cli.plugin.fields import default_text, key_of, limits, metavar, schema_of, shape
from nnopt_cli.plugin.flags import clashes, gather, parameters, reserved
from nnopt_cli.plugin.options import SHARED, CommonOptions, Options
from nnopt_cli.plugin.registry import Registry


class Colour(Component, kind="colour"):
    """A kind for this test."""


class Red(Colour):
    """Red."""

    depth: int = option(1, help="How deep.")


class Blue(Colour):
    """Blue."""


class Paint(TensorFilter, Pass):
    """Every form that an option can have."""

    plain: int = option(3, help="A number.", ge=0, lt=10, short="-p")
    needed: float = option(help="A number that must be given.")
    word: Literal["global", "layer"] = option("global", help="One of two.")
    glossy: bool = option(True, help="Shine.")
    names: tuple[str, ...] = option((), help="Several.", metavar="NAME")
    betas: tuple[float, float] = option((0.9, 0.99), help="A pair.")
    colour: Colour = option(Red(depth=2), help="A component.")
    layers: tuple[Colour, ...] = option((), help="Components.")
    sizes: dict[str, int] = option({}, help="A table.")
    limit: Annotated[int | None, "note"] = option(None, help="May be left out.")
    lambda_: float = option(0.0, help="A Python keyword.")
    where: Path | None = option(None, help="A place, e.g. w[/x] or [bold].")

    def run(self, model: Model, run: Run) -> Model:
        return model


FIELDS = Paint.model_fields


@pytest.fixture
def registry() -> Registry:
    made = Registry()
    made.add([Paint, Red, Blue], "test")
    return made


@pytest.mark.parametrize(
    ("field", "form", "placeholder", "default", "bounds"),
    [
        ("plain", "one", "INT", "3", "0<=x<10"),
        ("needed", "one", "FLOAT", "", ""),
        ("word", "one", "global|layer", "global", ""),
        ("glossy", "switch", "", "on", ""),
        ("names", "many", "NAME", "", ""),
        ("betas", "row", "FLOAT,FLOAT", "0.9, 0.99", ""),
        ("colour", "one", "COLOUR", "red:depth=2", ""),
        ("layers", "many", "COLOUR", "", ""),
        ("sizes", "json", "JSON", "", ""),
        ("limit", "one", "INT", "", ""),
        ("lambda_", "one", "FLOAT", "0.0", ""),
        ("where", "one", "PATH", "", ""),
    ],
)
def test_what_an_option_looks_like(field, form, placeholder, default, bounds):
    info = FIELDS[field]
    assert (shape(info).form, metavar(info), default_text(info), limits(info)) == (
        form, placeholder, default, bounds
    )  # fmt: skip


def run_typer(registry: Registry, *args: str) -> tuple[object, str]:
    """Parse `args` with the flags of Paint; returns what was built, and the output."""
    app, seen = typer.Typer(rich_markup_mode="rich"), []

    def command(**values):
        seen.append(gather(Paint, values, registry))

    command.__signature__ = inspect.Signature(parameters(Paint, registry))
    app.command()(command)
    result = CliRunner().invoke(app, list(args), env={"COLUMNS": "160"})
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return (seen[0] if seen else None), result.output


def test_nothing_given_is_all_defaults(registry):
    built, _ = run_typer(registry, "--needed", "1")
    assert built == Paint(needed=1)


def test_everything_given(registry):
    built, _ = run_typer(
        registry, "-p", "5", "--needed", "2.5", "--word", "layer", "--no-glossy", "--names", "a",
        "--names", "b,c", "--betas", "0.5, 0.6", "--colour", "blue", "--layers", "red:depth=7",
        "--layers", "blue", "--sizes", '{"x": 1}', "--limit", "4", "--lambda", "0.5",
        "--where", "w[/x]", "--include", "l*", "--exclude", "x",
    )  # fmt: skip
    assert built == Paint(
        plain=5, needed=2.5, word="layer", glossy=False, names=("a", "b,c"), betas=(0.5, 0.6), colour=Blue(),
        layers=(Red(depth=7), Blue()), sizes={"x": 1}, limit=4, lambda_=0.5, where=Path("w[/x]"),
        include=("l*",), exclude=("x",),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("args", "told"),
    [
        ([], "--needed is required"),
        (["--needed", "x"], "--needed 'x': must be a number"),
        (["--needed", "1", "-p", "10"], "--plain '10': must be at least 0, below 10"),
        (["--needed", "1", "--word", "lair"], "--word 'lair': must be one of global, layer"),
        (["--needed", "1", "--betas", "1"], "--betas"),
        (["--needed", "1", "--sizes", "{x}"], "--sizes '{x}': is not JSON"),
        (["--needed", "1", "--colour", "reed"], "there is no colour 'reed'"),
        (["--needed", "1", "--colour", "red:deep=1"], "there is no option 'deep'"),
        (["--needed", "1", "--colour", "red:depth=x"], "colour 'red': depth 'x': must be a whole number"),
    ],
)
def test_mistakes_name_the_flag(registry, args, told):
    with pytest.raises(UsageError, match=told):
        run_typer(registry, *args)


def test_help_shows_it_all_and_markup_stays_text(registry):
    _, shown = run_typer(registry, "--help")
    flat = " ".join(shown.replace("│", " ").split())
    assert "A number. [0<=x<10; default: 3]" in flat
    assert "A number that must be given. [required]" in flat
    assert "--glossy --no-glossy" in flat
    assert "A component. [red|blue; default: red:depth=2]" in flat
    assert "A place, e.g. w[/x] or [bold]." in flat
    assert "--lambda" in flat
    assert "lambda_" not in flat
    assert "Several. [repeatable]" in flat


def test_reserved_flags_cover_all_that_are_shared():
    for model in SHARED:
        for name, info in model.model_fields.items():
            assert key_of(name) in reserved()
            assert info.description
            assert isinstance(name, str)
    assert {"o", "v", "q", "h"} - {"h"} <= reserved()
    assert {"help", "json", "include", "exclude", "no-plugin", "arch", "trust-file"} <= reserved()


def test_shared_flags_are_distinct():
    names = [key_of(name) for model in SHARED for name in model.model_fields]
    assert len(names) == len(set(names))


def test_the_schema_says_defaults_and_kinds():
    options = schema_of(Paint)["properties"]
    assert options["colour"]["default"] == "red:depth=2"
    assert options["colour"]["kind"] == "colour"
    assert options["word"]["enum"] == ["global", "layer"]
    assert (options["plain"]["minimum"], options["plain"]["exclusiveMaximum"]) == (0, 10)
    json.dumps(options)


def test_clashes():
    assert clashes(Paint) == []

    class Bad(Pass):
        """x"""

        dry_run: bool = option(False, help="x")
        seed: int = option(0, help="x")
        no_force: int = option(0, help="x")
        include: tuple[str, ...] = option((), help="x")
        one: int = option(0, help="x", short="-z")
        two: int = option(0, help="x", short="-z")
        fast: bool = option(False, help="x")
        no_fast: int = option(0, help="x")

        def run(self, model, run):
            return model

    assert clashes(Bad) == ["--dry-run", "--seed", "--no-force", "--include", "-z", "--no-fast"]

    class Changed(TensorFilter, Pass):
        """x"""

        include: tuple[str, ...] = option((), help="Means something else here.")

        def run(self, model, run):
            return model

    assert clashes(Changed) == ["--include"]


def test_quiet_and_verbose_contradict(registry):
    with pytest.raises(UsageError, match="-v and -q contradict each other"):
        gather(CommonOptions, {"verbose": 2, "quiet": True}, registry)


def test_shared_switches_have_no_opposite(registry):
    class Some(Options):
        fast: bool = option(False, help="x")

    (parameter,) = parameters(Some, registry)
    assert parameter.annotation.__metadata__[0].default == "--fast"
