"""The tree that an output's pickle holds: the input's, with the new weights and without what may not stay."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from nnopt_cli.errors import NnoptError
from nnopt_cli.formats.checkpoint import Checkpoint, Leaf
from nnopt_cli.formats.inert import Call, Ordered, Placeholder
from nnopt_cli.formats.pickle_write import writable
from nnopt_cli.formats.tree import is_optimizer_entry

_DROP = object()  # what a walk returns for a value that the output cannot hold
_SHOWN = 5  # names in a note before it counts the others


def output_tree(checkpoint: Checkpoint) -> tuple[Any, list[str]]:
    """The tree to pickle, and notes about what was left out or carried along untouched.

    Raises NnoptError for a tree nested too deeply to follow.
    """
    container = checkpoint.container
    if container.tree is None or container.rebuilt:
        return Ordered((container.prefix + name, Leaf(w)) for name, w in checkpoint.weights.items()), []
    walk = _Walk(checkpoint)
    try:
        tree = walk.copy(container.tree, ())
    except RecursionError:
        raise NnoptError(f"{container.path}: its objects are nested too deeply to be written") from None
    return tree, walk.notes()


def entries_beside(checkpoint: Checkpoint) -> list[tuple[Any, ...]]:
    """Paths of what a checkpoint's tree holds beside the weights, which a format for tensors cannot keep."""
    path: tuple[Any, ...] = ()
    node = checkpoint.container.tree
    if checkpoint.container.rebuilt or node is None:
        return []
    out: list[tuple[Any, ...]] = []
    for step in checkpoint.container.key:
        out += [(*path, key) for key in node if key != step]
        node, path = node[step], (*path, step)
    return out + [(*path, key) for key, value in node.items() if not isinstance(value, Leaf)]


def _is_optimizer_state(key: Any, value: Any) -> bool:
    """Whether an entry must go: by its structure, or by its name if it holds tensors or an object.

    By name alone a setting would go, too: `optimizer: {name: adam}` stays.
    """
    parts = value if isinstance(value, list) and value else [value]
    if all(isinstance(part, dict) and is_optimizer_entry("", part) for part in parts):
        return True
    named = is_optimizer_entry(key, {})
    return named and (isinstance(value, Placeholder) or any(True for _ in _leaves(value)))


class _Walk:
    """Copies a tree, sharing what was shared; knows where it has been, since a tree may contain itself."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._weights = dict(checkpoint.weights)
        self._key = checkpoint.container.key
        self._prefix = checkpoint.container.prefix
        self._by_origin = {id(weight.origin): weight for weight in self._weights.values()}
        self._copies: dict[int, Any] = {}
        self._optimizer: list[tuple[Any, ...]] = []
        self._objects: list[tuple[Any, ...]] = []
        self._untouched: list[tuple[Any, ...]] = []

    def copy(self, node: Any, path: tuple[Any, ...]) -> Any:
        """`node` as the output holds it, or `_DROP`."""
        if id(node) in self._copies:
            return self._copies[id(node)]
        if isinstance(node, Leaf):
            return self._leaf(node, path)
        if isinstance(node, dict):
            return self._dict(node, path)
        if isinstance(node, list):
            return self._list(node, path)
        if isinstance(node, tuple | set):
            items = [self.copy(item, (*path, index)) for index, item in enumerate(node)]
            dropped = any(item is _DROP for item in items)
            self._copies[id(node)] = _DROP if dropped else type(node)(items)
            return self._copies[id(node)]
        if isinstance(node, Call) and self.copy(node.args, path) is _DROP:
            return _DROP
        return node if writable(node) else _DROP

    def _leaf(self, leaf: Leaf, path: tuple[Any, ...]) -> Leaf:
        weight = self._by_origin.get(id(leaf.weight))
        if weight is None:
            self._untouched.append(path)
            return leaf
        return Leaf(weight, leaf.parameter, leaf.requires_grad)

    def _list(self, node: list[Any], path: tuple[Any, ...]) -> Any:
        out = self._copies[id(node)] = []
        for index, item in enumerate(node):
            copied = self.copy(item, (*path, index))
            if copied is _DROP:
                self._copies[id(node)] = _DROP
                return _DROP
            out.append(copied)
        return out

    def _dict(self, node: dict[Any, Any], path: tuple[Any, ...]) -> dict[Any, Any]:
        out: dict[Any, Any] = Ordered() if isinstance(node, Ordered) else {}
        self._copies[id(node)] = out
        if path == self._key:
            self._state_dict(node, out)
        else:
            for key, value in node.items():
                self._entry(out, key, value, (*path, key))
        if isinstance(node, Ordered) and isinstance(out, Ordered):
            for key, value in node.attributes.items():
                self._entry(out.attributes, key, value, (*path, key))
        return out

    def _entry(self, out: dict[Any, Any], key: Any, value: Any, path: tuple[Any, ...]) -> None:
        if _is_optimizer_state(key, value):
            self._optimizer.append(path)
            return
        kept, copied = self.copy(key, path), self.copy(value, path)
        if kept is _DROP or copied is _DROP:
            self._objects.append(path)
        else:
            out[kept] = copied

    def _state_dict(self, node: dict[Any, Any], out: dict[Any, Any]) -> None:
        """The state dict: what the model says by name, in its old places; the rest as anywhere else."""
        left = dict(self._weights)
        for key, value in node.items():
            name = key.removeprefix(self._prefix) if isinstance(key, str) else key
            if not isinstance(value, Leaf):
                self._entry(out, key, value, (*self._key, key))
            elif name in self._weights:
                out[key] = Leaf(left.pop(name), value.parameter, value.requires_grad)
        seen = {id(leaf.weight) for leaf in _leaves(out)}
        for name, weight in left.items():
            if id(weight) not in seen:
                out[self._prefix + name] = Leaf(weight)

    def notes(self) -> list[str]:
        """What the user should know about what is not as it was."""
        out = []
        if self._optimizer:
            out.append(
                f"The optimizer's state ({listed(self._optimizer)}) was left out: "
                "its momentum would revive pruned weights."
            )
        if self._objects:
            out.append(f"Left out, since only plain values and tensors are written: {listed(self._objects)}.")
        if self._untouched:
            many = len(self._untouched) > 1
            what = f"{len(self._untouched)} tensor{'s' * many} outside the chosen weights"
            out.append(
                f"{what} {'were' if many else 'was'} carried over unchanged ({listed(self._untouched)})."
            )
        return out


def _leaves(node: Any) -> Iterator[Leaf]:
    """Every tensor below `node`, which may contain itself."""
    seen: set[int] = set()
    stack = [node]
    while stack:
        value = stack.pop()
        if isinstance(value, Leaf):
            yield value
        elif isinstance(value, dict | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            stack.extend(value.values() if isinstance(value, dict) else value)


def listed(paths: list[tuple[Any, ...]]) -> str:
    """Paths in a tree as words, the first few of them."""
    names = [".".join(str(step) for step in path) for path in paths]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
