"""The state dict of a module that was pickled whole, read off the placeholders of its objects.

Follows `torch.nn.Module.state_dict`: a module's parameters, then its persistent buffers, then its children.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from nnopt_cli.formats.checkpoint import Leaf
from nnopt_cli.formats.inert import Placeholder, Refused
from nnopt_cli.formats.pickle_source import MalformedError

_VISITS = 200_000  # of modules: one that is shared is visited under each of its names
_NAME = 2000  # characters


def is_module(node: Any) -> bool:
    """Whether a placeholder was a torch.nn.Module."""
    return isinstance(node, Placeholder) and _members(node) is not None


def module_tensors(root: Placeholder) -> dict[str, Leaf | Refused]:
    """What `root.state_dict()` would hold, in its order. Raises MalformedError for one without end."""
    out: dict[str, Leaf | Refused] = {}
    todo: list[tuple[str, Any]] = [("", root)]
    for _ in range(_VISITS):
        if not todo:
            return out
        prefix, node = todo.pop()
        _check_name(prefix)
        members = _members(node) if isinstance(node, Placeholder) else None
        if members is None:
            continue
        hidden = members.get("_non_persistent_buffers_set")
        hidden = hidden if isinstance(hidden, (set, list)) else ()
        for table, skipped in ((members["_parameters"], ()), (members["_buffers"], hidden)):
            for name, value in table.items():
                if isinstance(value, (Leaf, Refused)) and name not in skipped:
                    out[f"{prefix}{name}"] = value
        children = [(f"{prefix}{name}.", child) for name, child in members["_modules"].items()]
        todo.extend(reversed(children))
    raise MalformedError("its modules contain one another without end")


def script_tensors(root: Any) -> dict[str, Leaf | Refused]:
    """The tensors of a TorchScript module: attributes of its objects, by path."""
    out: dict[str, Leaf | Refused] = {}
    todo: list[tuple[str, Any]] = [("", root)]
    for _ in range(_VISITS):
        if not todo:
            return out
        prefix, node = todo.pop()
        _check_name(prefix)
        below = list(_attributes(node))
        out.update((f"{prefix}{name}", value) for name, value in below if isinstance(value, (Leaf, Refused)))
        todo.extend((f"{prefix}{name}.", value) for name, value in reversed(below) if _attributes(value))
    raise MalformedError("its modules contain one another without end")


def _attributes(node: Any) -> list[tuple[str, Any]]:
    state = node.state if isinstance(node, Placeholder) and not isinstance(node, Refused) else None
    return (
        [(name, value) for name, value in state.items() if isinstance(name, str)]
        if isinstance(state, dict)
        else []
    )


def _members(node: Placeholder) -> dict[str, Any] | None:
    """The `__dict__` of a module: its state, or what the function that makes it is given (torch.fx)."""
    for part in _dicts(node):
        if all(isinstance(part.get(name), dict) for name in ("_parameters", "_buffers", "_modules")):
            return part
    return None


def _dicts(node: Placeholder) -> Iterator[dict[str, Any]]:
    state = node.state
    for part in (state, *(state if isinstance(state, tuple) else ()), *node.args[:1]):
        if isinstance(part, dict):
            yield part


def _check_name(name: str) -> None:
    if len(name) > _NAME:
        raise MalformedError("its modules contain one another without end")
