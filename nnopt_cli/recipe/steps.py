"""Steps of a recipe, checked: what a table says, as components and options."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import BaseModel, ValidationError

from nnopt_cli.errors import UsageError
from nnopt_cli.model.naming import suggest
from nnopt_cli.plugin.explain import explain
from nnopt_cli.plugin.fields import key_of, shape
from nnopt_cli.plugin.kinds import Pass

if TYPE_CHECKING:
    from nnopt_cli.plugin.registry import Registry


class Command(Protocol):
    """What a recipe knows of a command that may follow the passes: its name, and its options."""

    @property
    def name(self) -> str: ...
    @property
    def makes(self) -> bool: ...
    def models(self, registry: Registry) -> tuple[type[BaseModel], ...]: ...


@dataclass(frozen=True)
class PassStep:
    """A pass, its seed (None for the recipe's), and the table that it was made from."""

    method: Pass
    seed: int | None
    table: Mapping[str, Any]


@dataclass(frozen=True)
class CommandStep:
    """A command that works on what the passes made, with its options by class, and on other models."""

    name: str
    options: Mapping[type[BaseModel], BaseModel]
    table: Mapping[str, Any]
    others: tuple[str, ...] = ()


@contextmanager
def placed(where: str) -> Iterator[None]:
    """Put `where` in front of what goes wrong inside."""
    try:
        yield
    except UsageError as error:
        raise UsageError(f"{where}: {error.message}", error.hint) from error


def pass_step(table: Mapping[str, Any], registry: Registry, *, allow_code: bool) -> PassStep:
    """Check a step `{pass: NAME, seed: …, option: …}`. Raises UsageError with close matches."""
    name = table["pass"]
    if not isinstance(name, str):
        raise UsageError(f"pass: {name!r} is not the name of a pass")
    seed = seed_of(table)
    given = {key: value for key, value in table.items() if key not in ("pass", "seed")}
    if "name" in given:
        raise UsageError("there is no option 'name'", "The pass is named by the key 'pass'.")
    if not name.startswith("code:"):
        given = in_lists(given, (registry.get("pass", name),))
    try:
        method = registry.build("pass", {"name": name, **given}, allow_code=allow_code)
    except UsageError as error:
        raise UsageError(error.message.removeprefix(f"pass {name!r}: "), error.hint) from error
    assert isinstance(method, Pass)
    return PassStep(method, seed, table)


def seed_of(table: Mapping[str, Any]) -> int | None:
    """A step's own seed; None where it has none. Raises UsageError."""
    seed = table.get("seed")
    if seed is None:
        return None
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise UsageError(f"seed: {seed!r} is not a whole number from 0 to 2**63 - 1")
    return seed


def command_step(
    table: Mapping[str, Any], commands: Iterable[Command], registry: Registry, *, allow_code: bool
) -> CommandStep:
    """Check a step `{command: NAME, with: [MODEL, …], option: …}`. Raises UsageError with close matches."""
    known = {command.name: command for command in commands}
    name = table["command"]
    if name not in known:
        hint = " ".join(filter(None, (suggest(str(name), known), f"There are: {', '.join(known)}.")))
        raise UsageError(f"command: {name!r} does not follow passes in a recipe", hint)
    models = known[name].models(registry)
    others = table.get("with") or []
    others = [others] if isinstance(others, str) else others
    if not isinstance(others, list) or not all(isinstance(each, str) for each in others):
        raise UsageError("with: is not a list of models")
    given = {key: value for key, value in table.items() if key not in ("command", "with")}
    options = options_of(given, models, registry, allow_code=allow_code)
    return CommandStep(name, options, table, tuple(others))


def options_of(
    table: Mapping[str, Any], models: tuple[type[BaseModel], ...], registry: Registry, *, allow_code: bool
) -> dict[type[BaseModel], BaseModel]:
    """Sort the keys of `table` to the option models that have them. Raises UsageError with close matches."""
    left = in_lists(table, models)
    found: dict[type[BaseModel], BaseModel] = {}
    for model in models:
        own = {name: left.pop(key) for key in list(left) if (name := field_of(model, key))}
        try:
            found[model] = model.model_validate(own, context={"registry": registry, "allow_code": allow_code})
        except ValidationError as error:
            raise explain(error, model, flags=False) from None
    for key in left:
        names = [key_of(name).replace("-", "_") for model in models for name in model.model_fields]
        hint = " ".join(filter(None, (suggest(key, names), f"Its options: {', '.join(names)}.")))
        raise UsageError(f"there is no option {key!r}", hint)
    return found


def field_of(model: type[BaseModel], key: str) -> str | None:
    """The field that `key` means: `val-split` is `val_split`, `json` is `json_`."""
    name = key.replace("-", "_")
    return next((field for field in (name, f"{name}_") if field in model.model_fields), None)


def in_lists(table: Mapping[str, Any], models: tuple[type[BaseModel], ...]) -> dict[str, Any]:
    """The same, with a single value of an option that takes several as a list of one, as flags have it."""
    out = {str(key): value for key, value in table.items()}
    for key, value in out.items():
        for model in models:
            field = field_of(model, key)
            if field and isinstance(value, str) and shape(model.model_fields[field]).form == "many":
                out[key] = [value]
    return out


def paths_in(value: object) -> Iterator[Path]:
    """Every path among the options of a component, however deep."""
    if isinstance(value, Path):
        yield value
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from paths_in(getattr(value, name))
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from paths_in(inner)
    elif isinstance(value, (list, tuple, set, frozenset)):
        for inner in value:
            yield from paths_in(inner)
