"""How a program's inputs and outputs are nested: tuples, lists and dicts, and nothing that needs code.

PyTorch's own reader imports modules here: for an enum among a dict's keys, and for the factory of a
`defaultdict`. And it reads classes of other libraries (a `ModelOutput`, a registered dataclass) only in
a process that has imported these; here they become a plain dict or tuple with the same leaves.
Source: `torch/utils/_pytree.py`, protocol 1.
"""

from __future__ import annotations

import json
from typing import Any

from nnopt_cli.formats.pt2_records import RefusedError, dotted, name, parse, plain, record, sequence, show

_DEPTH = 60
_DICTS = {"builtins.dict", "collections.OrderedDict", "collections.defaultdict"}
_DICTS |= {"torch.fx.immutable_collections.immutable_dict"}
_LISTS = {"builtins.list", "collections.deque", "torch.fx.immutable_collections.immutable_list"}
_TUPLES = {"builtins.tuple", "torch.Size", "collections.namedtuple"}

Node = dict[str, Any]
_FIELDS = record(
    {"type": lambda v: v, "context": lambda v: v, "children_spec": sequence(lambda v: v)},
)


class Trees:
    """Reads nested structures, and remembers which classes became something plainer."""

    def __init__(self) -> None:
        self.replaced: dict[str, str] = {}

    def parameters(self, value: Any) -> tuple[int, list[str]]:
        """How many positional arguments a program takes, and which keywords."""
        tree = self._parsed(value)
        parts = tree["children_spec"]
        kinds = [part["type"] for part in parts]
        if tree["type"] != "builtins.tuple" or kinds != ["builtins.tuple", "builtins.dict"]:
            raise RefusedError("it is not a tuple of positional arguments and a dict of keywords")
        return len(parts[0]["children_spec"]), [name(key) for key in json.loads(parts[1]["context"])]

    def any(self, value: Any) -> str:
        """Any nested structure."""
        return _printed(self._parsed(value))

    def _parsed(self, value: Any) -> Node:
        if type(value) is not str:
            raise RefusedError(f"{show(value)} is not a nested structure")
        pair = parse(value.encode(errors="replace"))
        if type(pair) is not list or len(pair) != 2 or pair[0] != 1:
            raise RefusedError(f"{show(value)} is not a nested structure of protocol 1")
        return self._node(pair[1], 0)

    def _node(self, value: Any, depth: int) -> Node:
        if depth > _DEPTH:
            raise RefusedError("it is nested too deeply")
        node = _FIELDS(value)
        kind, context, children = node["type"], node["context"], node["children_spec"]
        if kind is None:
            if context is not None or children:
                raise RefusedError("a leaf has something below it")
            return {"type": None, "context": None, "children_spec": []}
        dotted(kind)
        below = [self._node(child, depth + 1) for child in children]
        if kind in _TUPLES:
            if kind != "builtins.tuple":
                self.replaced[_called(kind, context)] = "tuple"
            return {"type": "builtins.tuple", "context": "null", "children_spec": below}
        if kind in _LISTS:
            if kind == "collections.deque":
                self.replaced[kind] = "list"
            return {"type": "builtins.list", "context": "null", "children_spec": below}
        keys = _keys(context, len(below))
        if keys is None and kind in _DICTS:
            raise RefusedError(f"the keys of a {kind} are not there, or are not plain")
        if kind not in _DICTS or kind == "collections.defaultdict":
            self.replaced[kind] = "dict" if keys is not None else "tuple"
        if keys is None:
            return {"type": "builtins.tuple", "context": "null", "children_spec": below}
        ordered = kind == "collections.OrderedDict"
        plainer = kind if ordered else "builtins.dict"
        return {"type": plainer, "context": json.dumps(keys), "children_spec": below}


def _keys(context: Any, count: int) -> list[str | int] | None:
    """The keys that a context gives to `count` values, or None if it does not."""
    if type(context) is dict:  # of a defaultdict
        context = context.get("dict_context")
    elif type(context) is str:
        context = parse(context.encode(errors="replace"))
    if type(context) is list and len(context) == 2 and all(type(part) is list for part in context):
        context = context[0]  # of a dataclass: the fields that are there, and those that are None
    if type(context) is not list or len(context) != count:
        return None
    for key in context:
        if type(key) is str:
            plain(key)
        elif type(key) is not int:
            raise RefusedError(f"a key of a dict is {show(key)}, which is neither text nor a whole number")
    if len(set(context)) != count:
        raise RefusedError("a key of a dict is there twice")
    return context


def _called(kind: str, context: Any) -> str:
    return plain(context) if kind == "collections.namedtuple" and type(context) is str else kind


def _printed(tree: Node) -> str:
    return json.dumps([1, tree])
