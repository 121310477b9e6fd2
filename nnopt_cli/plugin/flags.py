"""Typed options to command-line flags and back.

The fields of a pydantic model become Typer parameters; the strings that the user typed go to
pydantic as they are, so that an option is validated in one place whatever way it came.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from rich.markup import escape

from nnopt_cli.errors import UsageError
from nnopt_cli.plugin.data import DataOptions
from nnopt_cli.plugin.explain import explain
from nnopt_cli.plugin.fields import Shape, default_text, extra, key_of, limits, metavar, shape
from nnopt_cli.plugin.filter import TensorFilter
from nnopt_cli.plugin.options import SHARED, Options

if TYPE_CHECKING:
    from nnopt_cli.plugin.registry import Registry

M = TypeVar("M", bound=BaseModel)

# Taken on every command, now or by a part of nnopt that is to come.
_GLOBAL = {"help", "version", "no-plugin", "install-completion", "show-completion"}
_PLANNED = {"dtype", "trust-file"}
_FILTER = {key_of(name) for name in TensorFilter.model_fields}
_MIXED_IN: tuple[type[BaseModel], ...] = (TensorFilter, DataOptions)  # shared, by those that extend them


def reserved() -> frozenset[str]:
    """Flags that no component may take, without dashes; one-letter ones too."""
    taken = _GLOBAL | _PLANNED | _FILTER
    for model in SHARED:
        for name, info in model.model_fields.items():
            taken |= {key_of(name), f"no-{key_of(name)}"}
            taken |= {str(extra(info)["short"]).lstrip("-")} if "short" in extra(info) else set()
    return frozenset(taken)


def clashes(model: type[BaseModel]) -> list[str]:
    """The flags that `model` would add and that are taken, as `--flag`; twice-used ones too."""
    allowed = {name: TensorFilter.model_fields[name] for name in TensorFilter.model_fields}
    seen = set(reserved())
    found = []
    for name, info in model.model_fields.items():
        if issubclass(model, TensorFilter) and name in allowed and _same(info, allowed[name]):
            continue
        own = [key_of(name)] + [f"no-{key_of(name)}"] * (shape(info).form == "switch")
        short = [str(extra(info)["short"]).lstrip("-")] if "short" in extra(info) else []
        found += [f"--{flag}" for flag in own if flag in seen][:1] + [
            f"-{flag}" for flag in short if flag in seen
        ]
        seen.update(own, short)
    return found


def _same(one: FieldInfo, other: FieldInfo) -> bool:
    return one.annotation == other.annotation and one.description == other.description


def parameters(model: type[BaseModel], registry: Registry) -> list[inspect.Parameter]:
    """One keyword parameter per field of `model`, as Typer reads them from a signature."""
    return [_parameter(model, name, info, registry) for name, info in model.model_fields.items()]


def _parameter(model: type[BaseModel], name: str, info: FieldInfo, registry: Registry) -> inspect.Parameter:
    seen = shape(info)
    long, short = f"--{key_of(name)}", extra(info).get("short")
    counted = bool(extra(info).get("count"))
    shared = issubclass(model, Options) or _home(model, name) is not None
    pair = seen.form == "switch" and not shared  # shared switches have no opposite
    annotation: Any = int if counted else {"switch": bool, "many": list[str]}.get(seen.form, str)
    described = typer.Option(
        *([short] if short else []),
        f"{long}/--no-{key_of(name)}" if pair else long,
        help=help_text(info, seen, registry),
        metavar="" if counted else metavar(info),
        show_default=False,  # stands in the help text, as it would be typed
        count=counted,
        rich_help_panel=_panel(model, name),
    )
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, default=None, annotation=Annotated[annotation, described])


def _home(model: type[BaseModel], name: str) -> type[BaseModel] | None:
    """The shared group of flags that an option comes from, if it comes from one."""
    return next((home for home in _MIXED_IN if issubclass(model, home) and name in home.model_fields), None)


def _panel(model: type[BaseModel], name: str) -> str | None:
    home = _home(model, name) or (model if issubclass(model, Options) else None)
    panel = getattr(home, "panel", "Options")
    return None if panel == "Options" else str(panel)


def help_text(info: FieldInfo, seen: Shape, registry: Registry) -> str:
    """The sentence of `--help`, then choices, range and default; markup escaped."""
    aside = []
    if seen.kind and (names := registry.names(seen.kind)):
        aside.append("|".join(names) if len(names) < 5 else ", ".join(names))  # a long one has to wrap
    aside += [limits(info)] if limits(info) else []
    default = "" if extra(info).get("count") else default_text(info)
    aside += [f"default: {default}"] if default else []
    aside += ["required"] if info.is_required() else []
    aside += ["repeatable"] if seen.form == "many" else []
    tail = "; ".join(aside)
    return escape(info.description or "") + (f" [dim]{escape(f'[{tail}]')}[/dim]" if tail else "")


def gather(model: type[M], values: Mapping[str, Any], registry: Registry) -> M:
    """Validate what was typed. Raises UsageError that names the flags."""
    given: dict[str, Any] = {}
    for name, info in model.model_fields.items():
        value = values.get(name)
        if value is not None and value != []:
            given[name] = _unpack(f"--{key_of(name)}", value, shape(info))
    try:
        return model.model_validate(given, context={"registry": registry, "allow_code": True})
    except ValidationError as error:
        raise explain(error, model, flags=True) from None


def _unpack(flag: str, value: Any, seen: Shape) -> Any:
    if seen.form == "row" and isinstance(value, str):
        return [item.strip() for item in value.split(",")]
    if seen.form == "json" and isinstance(value, str):
        try:
            return json.loads(value)
        except ValueError as error:
            raise UsageError(f"{flag} {value!r}: is not JSON: {error}") from None
    return value
