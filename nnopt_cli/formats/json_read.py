"""JSON from untrusted files: no key twice, no constants that JSON lacks, bounded before it is parsed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn

_OBJECTS = 100_002  # `{` in the text: one for each tensor, and two
_QUOTES = 1_200_000  # `"`: twelve for each tensor
_LISTS = 250_000  # `[`


def parse_object(data: bytes) -> dict[str, Any]:
    """A JSON object. Raises ValueError, whose text completes "its header …"."""
    if data.count(b"{") > _OBJECTS or data.count(b"[") > _LISTS or data.count(b'"') > _QUOTES:
        raise ValueError("names more entries than any real model")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8") from None
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON (character {error.pos})") from None
    if not isinstance(value, dict):
        raise ValueError("is not a JSON object")
    return value


def nnopt_strings(table: Mapping[str, Any]) -> dict[str, str]:
    """nnopt's own strings in a table of metadata."""
    return {key: value for key, value in table.items() if key.startswith("nnopt.") and isinstance(value, str)}


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"has the key {twice!r:.80} twice")
    return out


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"holds {name}, which is not JSON")
