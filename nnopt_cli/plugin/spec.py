"""The grammar in which a component is written: `name`, `name:key=value,…`, `code:PATH.py:NAME`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from nnopt_cli.errors import UsageError

_CODE = re.compile(
    r"code:(?P<module>.+?\.py|[A-Za-z_][\w.]*):(?P<name>[A-Za-z_]\w*)(?::(?P<options>.*))?", re.S
)
_PLAIN = re.compile(r"""[^\s"'\[\]{},][^"'\[\]{},]*(?<!\s)""")  # needs no quotes as a value
_CLOSING = {"[": "]", "{": "}"}


@dataclass(frozen=True)
class Spec:
    """A parsed spec.

    Attributes:
        name: the component's name; for the user's own code the whole `code:…:NAME` reference.
        options: values by key; strings, or what a JSON list or object holds.
        module: for the user's own code, the file (`….py`) or the dotted module it is in.
        attribute: for the user's own code, the class in it.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    module: str = ""
    attribute: str = ""


def parse(text: str) -> Spec:
    """Read a spec. Raises UsageError that shows where it goes wrong."""
    if text.startswith("code:"):
        found = _CODE.fullmatch(text)
        if not found:
            raise UsageError(
                f"{text!r} is not a reference to code", "Write code:PATH.py:NAME or code:module:NAME."
            )
        reference = f"code:{found['module']}:{found['name']}"
        return Spec(reference, _options(text, found["options"]), found["module"], found["name"])
    name, colon, rest = text.partition(":")
    return Spec(name.strip(), _options(text, rest if colon else None))


def write(table: Mapping[str, Any]) -> str:
    """The inverse of `parse` for a component's table: `{"name": "sgd", "lr": 0.1}` is `sgd:lr=0.1`."""
    pairs = [f"{key}={_value(value)}" for key, value in table.items() if key != "name"]
    return ":".join([table["name"], ",".join(pairs)] if pairs else [table["name"]])


def _options(text: str, rest: str | None) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for item in _split(text, rest) if rest is not None else ():
        key, equals, value = item.partition("=")
        key = key.strip()
        if not equals or not key.replace("-", "_").isidentifier():
            raise UsageError(
                f"{text!r}: {item.strip()!r} is not key=value", "Write name:key=value,key=value."
            )
        if key in options:
            raise UsageError(f"{text!r}: {key!r} is given twice")
        options[key] = _read(text, value.strip())
    return options


def _split(text: str, rest: str) -> Iterator[str]:
    """Cut at the commas that are outside quotes and brackets."""
    start, quote, skip = 0, "", False
    open_: list[str] = []
    for index, char in enumerate(rest):
        if skip:
            skip = False
        elif quote:
            skip = char == "\\"
            quote = "" if char == quote else quote
        elif char in "\"'":
            quote = char if open_ or rest[start:index].rstrip().endswith("=") else ""
        elif char in _CLOSING:
            open_.append(_CLOSING[char])
        elif open_ and char == open_[-1]:
            open_.pop()
        elif char == "," and not open_:
            yield rest[start:index]
            start = index + 1
    if quote or open_:
        raise UsageError(f"{text!r}: {quote or open_[-1]} is missing at the end")
    yield rest[start:]


def _read(text: str, value: str) -> Any:
    if value[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except ValueError as error:
            raise UsageError(f"{text!r}: {value} is not a JSON list or object: {error}") from None
    if value[:1] in ('"', "'"):
        if len(value) < 2 or value[-1] != value[0]:
            raise UsageError(f"{text!r}: something follows the closing quote of {value}")
        return re.sub(r"\\(.)", r"\1", value[1:-1], flags=re.S)
    return None if value == "null" else value


def _value(value: Any) -> str:
    if value is None or isinstance(value, (bool, list, dict)):
        return json.dumps(value)
    if not isinstance(value, str):
        return str(value)
    if value != "null" and _PLAIN.fullmatch(value):
        return value
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
