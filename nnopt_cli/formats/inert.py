"""The values that a pickle becomes here: data, and descriptions of objects that are never made.

A tree (`Container.tree`) consists of None, bool, int, float, complex, str, bytes, list, tuple, dict, set,
frozenset and `Leaf` (a tensor), and of the classes below. Values may be shared and may contain themselves,
so every walk over a tree remembers where it has been, by `id`.

What is read as what: `collections.OrderedDict` -> `Ordered`; `defaultdict` and `Counter` -> `dict`; numpy
scalars -> Python numbers; dtypes, memory formats and other names of torch -> `Global`; `torch.Size`,
`torch.device` and `torch.layout` -> `Call`; every object of any other class -> `Placeholder`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nnopt_cli.formats.checkpoint import Leaf
from nnopt_cli.formats.weight import InputFile


def printable(text: str, most: int = 120) -> str:
    """Text from a file for a message: nothing that a terminal would obey, and not without end."""
    shown = "".join(char if char.isprintable() else "?" for char in text[:most])
    return shown if len(text) <= most else f"{shown}…"


@dataclass(frozen=True, slots=True)
class Global:
    """A name that the pickle refers to, e.g. `torch` `float32`. It is never looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        return printable(f"{self.module}.{self.name}")


@dataclass(frozen=True, slots=True)
class Call:
    """A value that is written back as a call of a harmless constructor, e.g. `torch.Size((2, 3))`."""

    function: Global
    args: tuple[Any, ...]


class Ordered(dict[Any, Any]):
    """A `collections.OrderedDict`, with the attributes that were set on it (`_metadata`)."""

    __slots__ = ("attributes",)

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.attributes: dict[str, Any] = {}


class Placeholder:
    """An object of a class that is not among the harmless ones: what was said about it, nothing more.

    It compares and hashes by identity, and is never written back.

    Attributes:
        cls: what the pickle would have called to make it.
        args: the arguments of that call.
        state: what the pickle would have given to `__setstate__` or put into `__dict__`.
        items: what would have been appended or set: a list of values or of (key, value) pairs.
    """

    __slots__ = ("args", "cls", "items", "state")

    def __init__(self, cls: Any, args: tuple[Any, ...] = ()) -> None:
        self.cls = cls
        self.args = args
        self.state: Any = None
        self.items: list[Any] | None = None

    def attribute(self, name: str) -> Any:
        """The attribute `name` as the state would have set it, or None."""
        state = self.state
        if isinstance(state, tuple) and len(state) == 2:  # (__dict__, slots)
            parts = [part for part in state if isinstance(part, dict)]
        else:
            parts = [state] if isinstance(state, dict) else []
        return next((part[name] for part in parts if name in part), None)

    def __repr__(self) -> str:
        return f"Placeholder({self.cls})"


class Refused(Placeholder):
    """A tensor that cannot be read, and why (`reason`: "is sparse, …")."""

    __slots__ = ("reason",)

    def __init__(self, cls: Any, reason: str) -> None:
        super().__init__(cls)
        self.reason = reason


class NdArray(Placeholder):
    """A numpy array: `content` is its tensor, or why it has none; None until the pickle has said it."""

    __slots__ = ("content",)

    def __init__(self, cls: Any) -> None:
        super().__init__(cls)
        self.content: Leaf | Refused | None = None


class Blob(Placeholder):
    """A large bytes object, left where it is: `size` bytes from byte `offset` of `file` on."""

    __slots__ = ("file", "offset", "size")

    def __init__(self, file: InputFile, offset: int, size: int) -> None:
        super().__init__(Global("builtins", "bytes"))
        self.file = file
        self.offset = offset
        self.size = size
