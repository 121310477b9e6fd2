"""What a typed option looks like from outside: its form, its placeholder, its limits, its default."""

from __future__ import annotations

import types
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from nnopt_cli.plugin.component import Component, plain
from nnopt_cli.plugin.spec import write

Form = Literal["switch", "one", "many", "row", "json"]
_WORDS = {int: "INT", float: "FLOAT", str: "TEXT", Path: "PATH", bool: "BOOL"}


@dataclass(frozen=True)
class Shape:
    """How an option is written.

    Attributes:
        form: `switch` (a bool), `one` value, `many` (the flag is repeated), `row` (`a,b` of fixed length),
            or `json`.
        items: type of the value, or of the values.
        choices: what it may be, where that is a short list.
        kind: which kind of component it names, if it does.
    """

    form: Form
    items: tuple[Any, ...]
    choices: tuple[str, ...] = ()
    kind: str = ""


def key_of(field: str) -> str:
    """How the option is written: `n_m` is `n-m`, and `lambda_` is `lambda`."""
    return field.rstrip("_").replace("_", "-")


def extra(info: FieldInfo) -> Mapping[str, Any]:
    """What `option()` noted beside pydantic's own figures: `short`, `metavar`, `count`."""
    return info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}


def shape(info: FieldInfo) -> Shape:
    """Analyse an option's type."""
    base = _bare(info.annotation)
    origin, args = get_origin(base), get_args(base)
    if base is bool:
        return Shape("switch", (bool,))
    if origin is tuple and args and args[-1] is not Ellipsis:
        return Shape("row", args)
    if isinstance(origin, type) and issubclass(origin, Collection) and not issubclass(origin, Mapping):
        return Shape("many", (_bare(args[0]) if args else str,), _choices(_bare(args[0])) if args else ())
    if base in (list, tuple, set, frozenset):
        return Shape("many", (str,))
    if _is(base, Component):
        return Shape("one", (base,), kind=base.kind)
    if _is(base, BaseModel) or _is(origin or base, Mapping):
        return Shape("json", (base,))
    return Shape("one", (base,), _choices(base))


def metavar(info: FieldInfo) -> str:
    """The placeholder in `--help`: from the declaration, else from the type."""
    if chosen := extra(info).get("metavar"):
        return str(chosen)
    seen = shape(info)
    if seen.form == "switch":
        return ""
    if seen.form == "json":
        return "JSON"
    if seen.choices:
        return "|".join(seen.choices)
    return seen.kind.upper() or ",".join(_word(item) for item in seen.items)


def limits(info: FieldInfo) -> str:
    """The allowed range as text, e.g. `0<=x<1`, or an empty string.

    A pattern is shown only where no placeholder says the form in words.
    """
    low = high = ""
    rest = []
    bounds = {key: form for key, form in _BOUNDS.items() if key != "pattern" or "metavar" not in extra(info)}
    for bound in info.metadata:
        for attribute, form in bounds.items():
            value = getattr(bound, attribute, None)
            if value is None:
                continue
            if attribute in ("ge", "gt"):
                low = form.format(value)
            elif attribute in ("le", "lt"):
                high = form.format(value)
            else:
                rest.append(form.format(value))
    return ", ".join([f"{low}x{high}"] * bool(low or high) + rest)


def bounds_in_words(info: FieldInfo) -> list[str]:
    """The allowed range as parts of a sentence: `above 0`, `at most 1`."""
    words = BOUNDS_IN_WORDS.items()
    found = ((getattr(bound, key, None), word) for bound in info.metadata for key, word in words)
    return [f"{word} {value}" for value, word in found if value is not None]


BOUNDS_IN_WORDS = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
_BOUNDS = {
    "ge": "{}<=",
    "gt": "{}<",
    "le": "<={}",
    "lt": "<{}",
    "multiple_of": "a multiple of {}",
    "min_length": "at least {} long",
    "max_length": "at most {} long",
    "pattern": "like {}",
}


def default_text(info: FieldInfo) -> str:
    """The default as it would be typed, or an empty string where there is none to speak of."""
    if info.is_required():
        return ""
    value = info.get_default(call_default_factory=True, validated_data={})
    if isinstance(value, Component):
        return value.spec()
    value = plain(value)
    if value is None or value == "" or value == [] or value == {} or value is False:
        return ""
    if value is True:
        return "on"
    if isinstance(value, dict) and "name" in value:
        return write(value)
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def schema_of(cls: type[Component]) -> dict[str, Any]:
    """The JSON schema of a component's options; an option that is a component says its `kind`.

    Raises pydantic's PydanticInvalidForJsonSchema for a type that has none.
    """
    schema = cls.model_json_schema()
    for name, info in cls.model_fields.items():
        option = schema["properties"][name]
        if kind := shape(info).kind:
            option["kind"] = kind
            if not info.is_required():
                option["default"] = default_text(info) or None
    return schema


def _bare(annotation: Any) -> Any:
    """Without `Annotated` and without `| None`."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (Union, types.UnionType):
        rest = [arg for arg in get_args(annotation) if arg is not type(None)]
        if len(rest) == 1:
            return _bare(rest[0])
    return annotation


def _choices(base: Any) -> tuple[str, ...]:
    if get_origin(base) is Literal:
        return tuple(str(value) for value in get_args(base))
    if _is(base, Enum):
        return tuple(str(member.value) for member in base)
    return ()


def _word(item: Any) -> str:
    item = _bare(item)
    if get_origin(item) in (Union, types.UnionType):
        return "|".join(_word(arg) for arg in get_args(item) if arg is not type(None))
    if choices := _choices(item):
        return "|".join(choices)
    if _is(item, Component):
        return str(item.kind).upper()
    return _WORDS.get(item, "VALUE")


def _is(item: Any, base: type) -> bool:
    return isinstance(item, type) and issubclass(item, base)
