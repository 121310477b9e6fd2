"""Filling a pickle's collections, or placeholders; keys are checked before they are hashed."""

from __future__ import annotations

from typing import Any

from nnopt_cli.formats.checkpoint import Leaf
from nnopt_cli.formats.inert import Call, Global, Placeholder
from nnopt_cli.formats.pickle_source import Limits, MalformedError

_HASH_BASE = (1 << 61) - 1  # integers from here on collide in a dict at will
_TUPLE_KEY = 1000  # steps: whoever chooses tuples can make them all collide
_KEYS = (str, int, float, bytes, type(None), Global, Leaf, Placeholder)  # complex ones collide at will


def extend(target: Any, values: list[Any]) -> None:
    """Append `values` to a list, or note that a placeholder would get them."""
    if type(target) is list:
        target.extend(values)
    elif isinstance(target, Placeholder):
        target.items = [] if target.items is None else target.items
        target.items.extend(values)
    else:
        raise MalformedError(f"it appends to a {type(target).__name__}")


def set_items(target: Any, flat: list[Any], limits: Limits) -> None:
    """Set the items of `flat` (key, value, key, …) on a dict, or note that a placeholder would get them."""
    if len(flat) % 2:
        raise MalformedError("a key has no value")
    pairs = zip(flat[::2], flat[1::2], strict=True)
    if isinstance(target, dict):
        for key, value in pairs:
            target[key if type(key) is str else checked_key(key, limits)] = value
    elif isinstance(target, Placeholder):
        extend(target, list(pairs))
    else:
        raise MalformedError(f"it sets items of a {type(target).__name__}")


def checked_key(key: Any, limits: Limits) -> Any:
    """A key that is safe to hash: hashing a tuple walks all of it, as often as it is shared."""
    if isinstance(key, (tuple, frozenset, Call)):
        limits.spend(_TUPLE_KEY)
    todo, seen = [key], 0
    while todo:
        part = todo.pop()
        seen += 1
        if seen > 1000:
            raise MalformedError("a key is absurdly large")
        if isinstance(part, (tuple, frozenset)):
            todo.extend(part)
        elif isinstance(part, Call):
            todo.extend(part.args)
        elif isinstance(part, int) and abs(part) >= _HASH_BASE:
            raise MalformedError("a key is an absurdly large integer")
        elif not isinstance(part, _KEYS):
            raise MalformedError(f"a {type(part).__name__} is used as a key")
    return key
