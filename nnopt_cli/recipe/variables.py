"""Variables of a recipe: `${sparsity}` in its values, set by `vars` or `--set`; a list means one run each."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from nnopt_cli.errors import UsageError
from nnopt_cli.model.naming import suggest
from nnopt_cli.recipe.syntax import read_value

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_USE = re.compile(r"\$(\$?)\{([^{}]*)\}")  # `$${` stands for `${` itself
MOST_RUNS = 1000  # of one sweep; more are a slip


def parse_settings(texts: Iterable[str]) -> dict[str, Any]:
    """`NAME=VALUE` pairs of `--set`; `a,b` and `[a, b]` are lists. Raises UsageError."""
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        name = name.strip()
        if not equals or not _NAME.fullmatch(name):
            raise UsageError(f"--set {text!r}: is not NAME=VALUE", "For example --set sparsity=0.7")
        if name in found:
            raise UsageError(f"--set {name} is given twice", f"Write a list: --set '{name}=[0.5, 0.7]'")
        found[name] = _value(name, value)
    return found


def _value(name: str, text: str) -> Any:
    text = text.strip()
    try:
        if "," in text and text[0] not in "[{\"'":
            return read_value(f"[{text}]")
        return read_value(text)
    except ValueError as error:
        raise UsageError(
            f"--set {name}={text}: {error}", "Put quotes around text with : or , in it."
        ) from None


def combinations(variables: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One table of values for each run: all combinations of the lists.

    Raises UsageError for an empty list, and for more runs than anyone wants.
    """
    lists = {name: value if isinstance(value, list) else [value] for name, value in variables.items()}
    for name, values in lists.items():
        if not values:
            raise UsageError(f"the variable {name!r} is an empty list, which is no run at all")
    if (runs := math.prod(map(len, lists.values()))) > MOST_RUNS:
        raise UsageError(f"the lists of the variables make {runs:,} runs; {MOST_RUNS:,} is the most")
    return [dict(zip(lists, values, strict=True)) for values in itertools.product(*lists.values())]


def names_in(value: object) -> Iterator[str]:
    """The variables that `value` uses, wherever in it they stand."""
    if isinstance(value, str):
        yield from (found[2].strip() for found in _USE.finditer(value) if not found[1])
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from names_in(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from names_in(inner)


def substitute(value: Any, variables: Mapping[str, Any]) -> Any:
    """`value` with its `${name}`s replaced: a text that is nothing else takes the variable's own type.

    Raises UsageError, with close matches, for a name that is no variable.
    """
    if isinstance(value, str):
        whole = _USE.fullmatch(value)
        if whole and not whole[1]:
            return _get(whole[2].strip(), variables)
        return _USE.sub(lambda found: _text(found, variables), value)
    if isinstance(value, Mapping):
        return {key: substitute(inner, variables) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [substitute(inner, variables) for inner in value]
    return value


def escape(value: Any) -> Any:
    """The inverse of `substitute` for a value without variables."""
    if isinstance(value, str):
        return value.replace("${", "$${")
    if isinstance(value, Mapping):
        return {key: escape(inner) for key, inner in value.items()}
    return [escape(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def as_text(value: object) -> str:
    """A variable's value inside of a text, such as a file's name."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, Mapping):
        return "-".join(as_text(each) for each in value.values())
    return "-".join(map(as_text, value)) if isinstance(value, list) else str(value)


def _text(found: re.Match[str], variables: Mapping[str, Any]) -> str:
    return found[0][1:] if found[1] else as_text(_get(found[2].strip(), variables))


def _get(name: str, variables: Mapping[str, Any]) -> Any:
    if name not in variables:
        known = f"Variables: {', '.join(variables)}." if variables else "Give it under vars, or by --set."
        close = suggest(name, variables)
        raise UsageError(f"there is no variable {name!r}", f"{close} {known}".strip())
    return variables[name]
