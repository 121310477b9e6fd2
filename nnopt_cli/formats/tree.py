"""Finding the model in an inert tree: which entries are state dicts, and what tensors they hold.

A checkpoint is whatever its author put into it. A state dict is a dict with text keys most of whose
values are tensors, or a pickled module, at most three levels down. An optimizer's state is neither.
Where there is no such thing, a dict that holds some tensors beside other things is one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from nnopt_cli.formats.checkpoint import Leaf
from nnopt_cli.formats.inert import Call, Global, NdArray, Ordered, Placeholder, Refused
from nnopt_cli.formats.modules import is_module, module_tensors, script_tensors
from nnopt_cli.formats.pickle_source import MalformedError

_DEPTH = 3  # levels of entries in which a state dict is looked for
_NESTING = 300  # levels of anything: whoever walks a tree by recursion survives it
_OPTIMIZER = re.compile(r"(.*optim.*|opts?|opt_states?|opt_[gd])", re.IGNORECASE)
_TENSORS = (Leaf, Refused, NdArray)
_EXTRA = "_extra_state"  # what torch.nn.Module.get_extra_state returned, beside the module's tensors
_DONE = object()


@dataclass(frozen=True)
class Candidate:
    """Something in the tree that may be the model.

    Attributes:
        key: the way to it.
        tensors: by name, in order.
        node: the dict or placeholder itself.
        plain: whether dicts alone lead to it, and it is one of tensors proper: it can be written back.
        what: for an object, its class.
    """

    key: tuple[str, ...]
    tensors: Mapping[str, Leaf | Refused]
    node: Any
    plain: bool
    what: str = ""

    @property
    def name(self) -> str:
        """As `--key` takes it."""
        return ".".join(self.key)

    @property
    def substantial(self) -> bool:
        """Whether it holds a floating tensor of at least one dimension, as no table of metrics does."""
        return any(
            isinstance(tensor, Refused) or (tensor.weight.shape and tensor.weight.dtype.kind in _FLOATING)
            for tensor in self.tensors.values()
        )


_FLOATING = ("float", "float8", "complex")


_MODEL = {  # entries that hold the model, even beside more tensors than they hold
    *("state_dict", "model", "model_state_dict", "model_state", "net", "network", "weights", "params"),
    *("generator", "module", "ema", "ema_state_dict", "params_ema"),
}


def is_optimizer_entry(key: object, value: object) -> bool:
    """Whether an entry of a checkpoint is an optimizer's state, by its name or by its structure."""
    several = value[:8] if isinstance(value, list) and value else [value]
    if all(isinstance(item, dict) and {"state", "param_groups"} <= item.keys() for item in several):
        return True
    holds = isinstance(value, (dict, list, tuple, Placeholder)) and not isinstance(value, _TENSORS)
    return holds and isinstance(key, str) and _OPTIMIZER.fullmatch(key) is not None


def candidates(root: Any, script: bool = False) -> list[Candidate]:
    """Everything in the tree that may be the model; the root alone where it is one itself.

    Raises MalformedError for a tree that repeats itself beyond measure.
    """
    if script:
        tensors = script_tensors(root)
        return [Candidate((), tensors, root, False, class_of(root))] if tensors else []
    found: list[Candidate] = []
    for share in (0.5, 0.0):  # of tensors among the values
        found = []
        _search(root, (), True, found, set(), share)
        if solid := [candidate for candidate in found if candidate.substantial]:
            return solid
    return found


def _search(
    node: Any, key: tuple[str, ...], plain: bool, found: list[Candidate], seen: set[int], share: float
) -> None:
    """Add the candidates at and below `node`, each object once."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if is_module(node):
        if tensors := module_tensors(node):
            found.append(Candidate(key, tensors, node, False, class_of(node)))
        return
    below: list[Candidate] = []
    for step, value in entries(node) if len(key) < _DEPTH else ():
        if not is_optimizer_entry(step, value):
            _search(value, (*key, step), plain and isinstance(node, dict), below, seen, share)
    own = _state_dict(node, key, plain, share)
    named = any(c.key[-1] in _MODEL for c in below if c.key)
    if own is not None and not named and len(own.tensors) > max((len(c.tensors) for c in below), default=0):
        found.append(own)
    else:
        found.extend(below)


def _state_dict(node: Any, key: tuple[str, ...], plain: bool, share: float) -> Candidate | None:
    """`node` as a state dict, if more than `share` of its values are tensors; extra states do not count."""
    if not isinstance(node, dict):
        return None
    tensors = tensors_of(node)
    extra = sum(1 for name in node if isinstance(name, str) and name.endswith(_EXTRA) and name not in tensors)
    if not tensors or len(tensors) <= share * (len(node) - extra):
        return None
    proper = not any(isinstance(node[name], NdArray) for name in tensors)
    return Candidate(key, tensors, node, plain and proper)


def tensors_of(node: Mapping[Any, Any]) -> dict[str, Leaf | Refused]:
    """The values of a dict that are tensors and have text for a name."""
    out: dict[str, Leaf | Refused] = {}
    for name, value in node.items():
        if isinstance(value, NdArray):
            value = value.content
        if isinstance(name, str) and isinstance(value, (Leaf, Refused)):
            out[name] = value
    return out


def entries(node: Any) -> Iterator[tuple[str, Any]]:
    """Name and value of what a dict, list, tuple or object holds, where the name is text.

    An object holds its attributes, and what it was made from (`torch.compile` wraps a module like that).
    """
    if isinstance(node, (list, tuple)):
        yield from ((str(index), value) for index, value in enumerate(node[:100]))
    elif isinstance(node, dict):
        yield from ((name, value) for name, value in node.items() if isinstance(name, str))
    elif isinstance(node, Placeholder):
        yield from entries(node.args)
        if isinstance(node.state, dict):
            yield from entries(node.state)


def at_key(root: Any, key: str) -> Candidate | None:
    """The entry that `--key` names, if there is one that holds tensors; names may contain dots."""
    node, steps, plain, rest = root, [], True, key
    while rest:
        below = dict(entries(node))
        step = next((s for s in sorted(below, key=len, reverse=True) if f"{rest}.".startswith(f"{s}.")), None)
        if step is None:
            return None
        plain = plain and isinstance(node, dict)
        node, rest = below[step], rest[len(step) + 1 :]
        steps.append(step)
    if is_module(node):
        tensors: Mapping[str, Leaf | Refused] = module_tensors(node)
    else:
        tensors = tensors_of(node) if isinstance(node, dict) else {}
        plain = plain and isinstance(node, dict) and not any(isinstance(v, NdArray) for v in node.values())
    what = class_of(node) if is_module(node) else ""
    return Candidate(tuple(steps), tensors, node, plain and not what, what) if tensors else None


def class_of(node: Any) -> str:
    """The name of an object's class, for a message."""
    return str(node.cls) if isinstance(node, Placeholder) and isinstance(node.cls, Global) else "an object"


def check_nesting(root: Any) -> None:
    """Raise MalformedError for a tree too deep for those who walk it by recursion, each value once."""
    seen = {id(root)}
    path = [_inside(root)]
    while path:
        value = next(path[-1], _DONE)
        if value is _DONE:
            path.pop()
        elif isinstance(value, (dict, list, tuple, set, Call, Placeholder)) and id(value) not in seen:
            seen.add(id(value))
            path.append(_inside(value))
            if len(path) > _NESTING:
                raise MalformedError("its objects are nested too deeply")


def _inside(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value.keys()
        yield from value.values()
        if isinstance(value, Ordered):
            yield from value.attributes.values()
    elif isinstance(value, (list, tuple, set)):
        yield from value
    elif isinstance(value, Call):
        yield from value.args
    elif isinstance(value, Placeholder):
        yield from (value.args, value.state, value.items)
