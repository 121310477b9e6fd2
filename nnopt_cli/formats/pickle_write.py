"""A pickler for what a checkpoint may hold, in the subset that `torch.load(weights_only=True)` reads.

Protocol 2, without importing torch: plain data, and the calls that rebuild tensors, as `torch.save`
writes them (PyTorch 2.13, torch/_weights_only_unpickler.py lists the opcodes and globals allowed).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from typing import Any

from nnopt_cli.errors import NnoptError
from nnopt_cli.formats.checkpoint import Leaf
from nnopt_cli.formats.dtypes import DTYPES
from nnopt_cli.formats.inert import Call, Global, Ordered
from nnopt_cli.formats.weight import Weight

_CALLS = {"torch.Size", "torch.device", "torch.serialization._get_layout"}
_BATCH = 1000  # items per SETITEMS or APPENDS, so that a reader's stack stays short


def dump(tree: Any) -> tuple[bytes, list[Weight]]:
    """Pickle `tree`; returns the pickle and the tensors, whose storages are `data/0`, `data/1`, … in order.

    Objects that occur twice are written once and shared, also tensors. Raises NnoptError for a kind of
    object that the subset lacks, or for nesting too deep to follow.
    """
    pickler = _Pickler()
    try:
        pickler.save(tree)
    except RecursionError:
        raise NnoptError("the checkpoint's objects are nested too deeply to be written") from None
    return b"\x80\x02" + b"".join(pickler.out) + b".", pickler.storages


class _Pickler:
    def __init__(self) -> None:
        self.out: list[bytes] = []
        self.storages: list[Weight] = []
        self._keys: dict[int, str] = {}  # id of a weight -> key of its storage
        self._memo: dict[Any, int] = {}
        self._alive: list[Any] = []  # an id in the memo must not be used again by another object

    def save(self, value: Any) -> None:
        """Write the opcodes that leave `value` on the reader's stack."""
        saver = _SAVERS.get(type(value))
        if saver is None:
            raise NnoptError(f"a checkpoint entry of type {type(value).__name__} cannot be written")
        saver(self, value)

    def _recall(self, key: Any) -> bool:
        """Fetch what was memoised under `key`, if anything was."""
        index = self._memo.get(key)
        if index is not None:
            self.out.append(b"h" + bytes([index]) if index < 256 else b"j" + struct.pack("<I", index))
        return index is not None

    def _memoise(self, key: Any) -> None:
        index = self._memo[key] = len(self._memo)
        self.out.append(b"q" + bytes([index]) if index < 256 else b"r" + struct.pack("<I", index))

    def _shared(self, value: Any, write: Callable[[], None]) -> None:
        """Write an object with an identity once."""
        if not self._recall(id(value)):
            write()
            self._memoise(id(value))
            self._alive.append(value)

    def _global(self, module: str, name: str) -> None:
        if not self._recall((module, name)):
            self.out.append(f"c{module}\n{name}\n".encode())
            self._memoise((module, name))

    def _call(self, module: str, name: str, *args: Any) -> None:
        self._global(module, name)
        self._plain_tuple(args)
        self.out.append(b"R")

    def _plain_tuple(self, items: Iterable[Any]) -> None:
        items = tuple(items)
        self.out.append(b"(" if len(items) > 3 else b"")
        for item in items:
            self.save(item)
        self.out.append((b")", b"\x85", b"\x86", b"\x87")[len(items)] if len(items) <= 3 else b"t")

    def save_none(self, value: None) -> None:
        self.out.append(b"N")

    def save_bool(self, value: bool) -> None:
        self.out.append(b"\x88" if value else b"\x89")

    def save_int(self, value: int) -> None:
        if 0 <= value < 1 << 8:
            self.out.append(b"K" + bytes([value]))
        elif 0 <= value < 1 << 16:
            self.out.append(b"M" + struct.pack("<H", value))
        elif -(1 << 31) <= value < 1 << 31:
            self.out.append(b"J" + struct.pack("<i", value))
        else:
            raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
            if len(raw) > 255:
                raise NnoptError(f"an integer of {len(raw)} bytes cannot be written into a checkpoint")
            self.out.append(b"\x8a" + bytes([len(raw)]) + raw)

    def save_float(self, value: float) -> None:
        self.out.append(b"G" + struct.pack(">d", value))

    def save_complex(self, value: complex) -> None:
        self._call("__builtin__", "complex", value.real, value.imag)

    def save_str(self, value: str) -> None:
        if not self._recall(value):
            raw = value.encode("utf-8", "surrogatepass")
            self.out.append(b"X" + struct.pack("<I", len(raw)) + raw)
            self._memoise(value)

    def save_bytes(self, value: bytes) -> None:
        self._call("_codecs", "encode", value.decode("latin1"), "latin1")

    def save_bytearray(self, value: bytearray) -> None:
        self._shared(value, lambda: self._call("__builtin__", "bytearray", bytes(value)))

    def save_set(self, value: set[Any]) -> None:
        self._shared(value, lambda: self._call("__builtin__", "set", sorted(value, key=repr)))

    def save_tuple(self, value: tuple[Any, ...]) -> None:
        self._shared(value, lambda: self._plain_tuple(value))

    def save_list(self, value: list[Any]) -> None:
        if self._recall(id(value)):
            return
        self.out.append(b"]")
        self._memoise(id(value))
        self._alive.append(value)
        for start in range(0, len(value), _BATCH):
            self.out.append(b"(")
            for item in value[start : start + _BATCH]:
                self.save(item)
            self.out.append(b"e")

    def save_dict(self, value: dict[Any, Any]) -> None:
        if self._recall(id(value)):
            return
        if isinstance(value, Ordered):
            self._call("collections", "OrderedDict")
        else:
            self.out.append(b"}")
        self._memoise(id(value))
        self._alive.append(value)
        items = list(value.items())
        for start in range(0, len(items), _BATCH):
            self.out.append(b"(")
            for pair in items[start : start + _BATCH]:
                self.save(pair[0])
                self.save(pair[1])
            self.out.append(b"u")
        if isinstance(value, Ordered) and value.attributes:  # such as a state dict's `_metadata`
            self.save(value.attributes)
            self.out.append(b"b")

    def save_global(self, value: Global) -> None:
        self._global(value.module, value.name)

    def save_call(self, value: Call) -> None:
        self._shared(value, lambda: self._call(value.function.module, value.function.name, *value.args))

    def save_leaf(self, leaf: Leaf) -> None:
        key = (id(leaf.weight), leaf.parameter, leaf.requires_grad)
        if self._recall(key):
            return
        if leaf.parameter:
            self._global("torch._utils", "_rebuild_parameter")
            self._tensor(leaf.weight, False)
            self.save_bool(leaf.requires_grad)
            self._call("collections", "OrderedDict")
            self.out.append(b"\x87R")
        else:
            self._tensor(leaf.weight, leaf.requires_grad)
        self._memoise(key)

    def _tensor(self, weight: Weight, requires_grad: bool) -> None:
        """A call that rebuilds a row-major tensor on a storage of its own."""
        typed = weight.dtype.storage is not None
        self._global("torch._utils", "_rebuild_tensor_v2" if typed else "_rebuild_tensor_v3")
        self.out.append(b"(")
        self._storage(weight)
        self.save_int(0)
        self._plain_tuple(weight.shape)
        self._plain_tuple(_strides(weight.shape))
        self.save_bool(requires_grad)
        self._call("collections", "OrderedDict")
        if not typed:
            self._global("torch", weight.dtype.name)
        self.out.append(b"tR")

    def _storage(self, weight: Weight) -> None:
        key = self._keys.get(id(weight))
        if key is None:
            key = self._keys[id(weight)] = str(len(self.storages))
            self.storages.append(weight)
        self.out.append(b"(")
        self.save_str("storage")
        if weight.dtype.storage is not None:
            self._global("torch", weight.dtype.storage)
        else:
            self._global("torch.storage", "UntypedStorage")
        self.save_str(key)
        self.save_str("cpu")
        self.save_int(weight.numel if weight.dtype.storage is not None else weight.nbytes)
        self.out.append(b"tQ")


def writable(value: Any) -> bool:
    """Whether a tree's value that is not plain data may be written: `weights_only=True` would load it."""
    if isinstance(value, Global):
        return value.module == "torch" and value.name in DTYPES
    if isinstance(value, Call):
        return str(value.function) in _CALLS
    return type(value) in _SAVERS


def _strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Of a row-major tensor, in elements."""
    out, step = [], 1
    for size in reversed(shape):
        out.append(step)
        step *= max(size, 1)
    return tuple(reversed(out))


_SAVERS: dict[type, Callable[[_Pickler, Any], None]] = {
    type(None): _Pickler.save_none,
    bool: _Pickler.save_bool,
    int: _Pickler.save_int,
    float: _Pickler.save_float,
    complex: _Pickler.save_complex,
    str: _Pickler.save_str,
    bytes: _Pickler.save_bytes,
    bytearray: _Pickler.save_bytearray,
    set: _Pickler.save_set,
    tuple: _Pickler.save_tuple,
    list: _Pickler.save_list,
    dict: _Pickler.save_dict,
    Ordered: _Pickler.save_dict,
    Global: _Pickler.save_global,
    Call: _Pickler.save_call,
    Leaf: _Pickler.save_leaf,
}
