"""Kinds of JSON value, and what is built from them: a value passes only as a copy of what was understood.

A kind is a function from a parsed JSON value to a clean copy, raising `RefusedError`. Unknown keys of a
record are left behind, so nothing that was not looked at is in the copy.
"""

from __future__ import annotations

import json
import keyword
import math
from collections.abc import Callable, Mapping
from typing import Any

Kind = Callable[[Any], Any]

_MOST = 4_000_000  # brackets, commas and colons: each costs a parsed value of at most 100 bytes
_INT64 = 1 << 63
_LINE_BREAKING = set("\"'`\\")
_RESERVED = {"torch", "device", "inf", "nan", "NoneType", "fx_pytree", "pytree", "self", "math"}


class RefusedError(Exception):
    """A value is not one that may pass; says what is wrong and, from the outside in, where."""

    def __init__(self, what: str, hint: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint
        self.path: list[str] = []

    def under(self, step: str) -> RefusedError:
        """The same, one step further out."""
        self.path.append(step)
        return self

    @property
    def where(self) -> str:
        """The way to the value, e.g. `graph.nodes[3].target`."""
        return "".join(reversed(self.path)).lstrip(".")


def parse(text: bytes) -> Any:
    """JSON, of a bounded number of values, no key twice. Raises RefusedError."""
    count = sum(text.count(mark) for mark in (b"[", b"{", b",", b":"))
    if count > _MOST:
        raise RefusedError(f"it has {count:,} values, and {_MOST:,} are the most that a program may have")
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_constant)
    except RecursionError:
        raise RefusedError("it is nested too deeply") from None
    except ValueError as error:  # also text that is not UTF-8, and numbers of thousands of digits
        raise RefusedError(f"it is not JSON: {error}") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        raise ValueError("an object has a key twice")
    return out


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def show(value: Any) -> str:
    """A value as a message shows it."""
    text = json.dumps(value, default=str)
    return text if len(text) <= 80 else text[:77] + "..."


def integer(least: int = -_INT64, most: int = _INT64 - 1) -> Kind:
    """A whole number in a range."""

    def check(value: Any) -> int:
        if type(value) is not int or not least <= value <= most:
            bounds = "a 64-bit integer" if (least, most) == (-_INT64, _INT64 - 1) else f"in {least} to {most}"
            raise RefusedError(f"{show(value)} is not {bounds}")
        return value

    return check


def number(value: Any) -> Any:
    """A floating-point number; what JSON cannot say comes as a word."""
    if type(value) is float and value in (math.inf, -math.inf):  # a literal such as 1e999
        return "Infinity" if value > 0 else "-Infinity"
    if type(value) in (int, float) or (type(value) is str and value in ("Infinity", "-Infinity", "NaN")):
        return value
    raise RefusedError(f"{show(value)} is not a number")


def boolean(value: Any) -> bool:
    """true or false."""
    if type(value) is not bool:
        raise RefusedError(f"{show(value)} is neither true nor false")
    return value


def text(most: int = 10_000) -> Kind:
    """Text that is only ever data."""

    def check(value: Any) -> str:
        if type(value) is not str or len(value) > most or not (value.isascii() or _encodes(value)):
            raise RefusedError(f"{show(value)} is not text of at most {most:,} characters")
        return value

    return check


def _encodes(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True


def name(value: Any) -> str:
    """A name that PyTorch writes, as it is, into Python source that it then runs."""
    if type(value) is not str or not value.isidentifier() or len(value) > 1000:
        raise RefusedError(f"{show(value)} is not a name; PyTorch would run it as Python code")
    if keyword.iskeyword(value) or value in _RESERVED or value.startswith("__"):
        raise RefusedError(f"{value!r} cannot be a name here, since it means something in Python or PyTorch")
    return value


def plain(value: Any) -> str:
    """Text that PyTorch writes between quotes into Python source that it then runs."""
    if type(value) is not str or len(value) > 1000 or not value.isprintable() or _LINE_BREAKING & set(value):
        raise RefusedError(f"{show(value)} has characters that could end a quoted text in Python code")
    return value


def dotted(value: Any) -> str:
    """The name of a tensor or a module: parts with dots between them, which PyTorch looks up one by one."""
    plain(value)
    for part in value.split("."):
        if not part or (part.startswith("__") and part.endswith("__")) or part in _INSIDES:
            raise RefusedError(f"{show(value)} cannot be the name of a tensor or a module")
    return str(value)


_INSIDES = {"_parameters", "_buffers", "_modules", "forward", "_graph", "_code", "_in_spec", "_out_spec"}


def one_of(*words: Any) -> Kind:
    """One of a few words or numbers."""

    def check(value: Any) -> Any:
        if type(value) not in {type(word) for word in words} or value not in words:
            raise RefusedError(f"{show(value)} is not one of {', '.join(map(str, words))}")
        return value

    return check


def optional(kind: Kind) -> Kind:
    """A kind, or null."""
    return lambda value: None if value is None else kind(value)


def sequence(kind: Kind) -> Kind:
    """A list of a kind."""

    def check(value: Any) -> list[Any]:
        if type(value) is not list:
            raise RefusedError(f"{show(value)} is not a list")
        out: list[Any] = []
        try:
            for item in value:
                out.append(kind(item))
        except RefusedError as problem:
            raise problem.under(f"[{len(out)}]") from None
        return out

    return check


def table(key: Kind, kind: Kind) -> Kind:
    """An object with free keys."""

    def check(value: Any) -> dict[str, Any]:
        if type(value) is not dict:
            raise RefusedError(f"{show(value)} is not an object")
        out: dict[str, Any] = {}
        for word, item in value.items():
            try:
                out[key(word)] = kind(item)
            except RefusedError as problem:
                raise problem.under(f"[{word[:80]}]") from None
        return out

    return check


def record(fields: Mapping[str, Kind], defaults: Mapping[str, Any] | None = None) -> Kind:
    """An object with fixed keys; those in `defaults` may be missing."""
    given = dict(defaults or {})

    def check(value: Any) -> dict[str, Any]:
        if type(value) is not dict:
            raise RefusedError(f"{show(value)} is not an object")
        out: dict[str, Any] = {}
        for word, kind in fields.items():
            if word not in value:
                if word not in given:
                    raise RefusedError(f"{word!r} is missing")
                out[word] = given[word]
                continue
            try:
                out[word] = kind(value[word])
            except RefusedError as problem:
                raise problem.under(f".{word}") from None
        return out

    return check


def union(kinds: Mapping[str, Kind], refused: Mapping[str, str] | None = None) -> Kind:
    """An object with one key, which says what its value is; `refused` gives reasons for some keys."""

    def check(value: Any) -> dict[str, Any]:
        if type(value) is not dict or len(value) != 1:
            raise RefusedError(f"{show(value)} does not say what kind of value it is")
        ((word, item),) = value.items()
        if word not in kinds:
            raise RefusedError(
                (refused or {}).get(word) or f"{show(word)} is not a kind of value that nnopt knows"
            )
        try:
            return {word: kinds[word](item)}
        except RefusedError as problem:
            raise problem.under(f".{word}") from None

    return check


def later(kind: Callable[[], Kind]) -> Kind:
    """A kind that is defined further down, for values that hold values of their own kind."""
    return lambda value: kind()(value)
