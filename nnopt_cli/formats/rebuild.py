"""What the calls in a pickled checkpoint become. The list is fixed: any other call is a placeholder.

The functions are those that `torch.save` of PyTorch 0.1 to 2.13 names (torch/_utils.py, torch/_tensor.py,
torch/serialization.py), the collections of Python, and numpy's scalars and arrays (in `rebuild_numpy`).
"""

from __future__ import annotations

import collections
from collections.abc import Callable
from typing import Any, Protocol

from nnopt_cli.formats.checkpoint import Leaf
from nnopt_cli.formats.dtypes import BY_STORAGE, DTYPES, DType
from nnopt_cli.formats.inert import Blob, Call, Global, NdArray, Ordered, Placeholder, Refused
from nnopt_cli.formats.pickle_source import Limits, MalformedError, Source
from nnopt_cli.formats.pickle_store import checked_key, set_items
from nnopt_cli.formats.rebuild_numpy import NUMPY, NpDtype, set_dtype_state, set_state
from nnopt_cli.formats.storage import MemoryFile, Storage, View

_QUANTIZED = {
    "QInt8Storage": 1,
    "QUInt8Storage": 1,
    "QInt32Storage": 4,
    "QUInt4x2Storage": 1,
    "QUInt2x4Storage": 1,
}
_STORAGE_MODULES = ("torch", "torch.cuda", "torch.storage")
_UNTYPED = "UntypedStorage"
_FEW = 16  # items of a tuple that are looked into


class Storages(Protocol):
    """Where the storages of a checkpoint come from."""

    def storage(self, key: str, size: int, itemsize: int) -> Storage:
        """The storage called `key`, claimed to hold `size` bytes. Raises UnreadableError if it cannot."""


class Rebuilder:
    """Decides what calls become."""

    def __init__(
        self, source: Source, storages: Storages | None, limits: Limits, nested: bool = False
    ) -> None:
        self.source = source
        self.limits = limits
        self._foreign: collections.Counter[Any] = collections.Counter()
        self._storages = storages
        self._nested = nested
        self._names: dict[tuple[str, str], Global] = {}

    @property
    def foreign(self) -> dict[str, int]:
        """The classes and functions that became placeholders, and how often."""
        return {str(what): count for what, count in self._foreign.items()}

    def name(self, module: str, name: str) -> Global:
        """A global: the same object each time, and nothing more than its name."""
        module = {"__builtin__": "builtins", "copy_reg": "copyreg"}.get(module, module)
        return self._names.setdefault((module, name), Global(module, name))

    def call(self, function: Any, args: tuple[Any, ...]) -> Any:
        """What `function(*args)` becomes."""
        self.limits.spend(_extent(args))
        if isinstance(function, Global):
            made = _CALLS.get((function.module, function.name))
            if made is not None:
                return made(self, function, *args)
            if (numpy := NUMPY.get(function.name)) and function.module.partition(".")[0] == "numpy":
                return numpy(self.source.file, function, *args)
            if function.name.startswith("_rebuild_") and function.module.partition(".")[0] == "torch":
                return Refused(function, f"is of a kind that nnopt cannot read ({function})")
            self._foreign[function] += 1
        return Placeholder(function, args)

    def build(self, value: Any, state: Any) -> None:
        """What `value.__setstate__(state)` becomes."""
        self.limits.spend(_extent((state,)))
        if isinstance(value, NpDtype):
            set_dtype_state(value, state)
        elif isinstance(value, NdArray):
            set_state(self.source.file, value, state)
        elif isinstance(value, Placeholder):
            both = isinstance(value.state, dict) and isinstance(state, dict)
            self.limits.spend(len(value.state) if both else 0)
            value.state = {**value.state, **state} if both else state
        elif isinstance(value, Ordered):
            if isinstance(state, dict) and all(type(key) is str for key in state):
                value.attributes.update(state)
        elif not isinstance(value, (Leaf, dict, list, set)):  # those carry attributes that mean nothing here
            raise MalformedError(f"it sets the state of a {type(value).__name__}")

    def persistent(self, key: Any) -> Any:
        """What a persistent id stands for: `("storage", type, key, location, elements[, view])`."""
        if not isinstance(key, tuple) or not key:
            raise MalformedError("a persistent id is not one of PyTorch's")
        kind = key[0].decode("latin-1") if isinstance(key[0], bytes) else key[0]
        if kind == "module" and len(key) >= 2:  # (class, source file, source): only the class matters
            return key[1]
        if kind != "storage" or len(key) not in (5, 6) or not isinstance(key[1], Global):
            raise MalformedError("a persistent id is not one of PyTorch's")
        if self._storages is None:
            raise MalformedError("it refers to storages, and has none")
        cls, name, elements = key[1], _text(key[2]), key[4]
        dtype, itemsize = _storage_type(cls)
        if type(elements) is not int or not 0 <= elements < 1 << 60:
            raise MalformedError("a storage has an impossible size")
        storage = self._storages.storage(name, elements * itemsize, itemsize)
        offset, size = 0, elements * itemsize
        if len(key) == 6 and key[5] is not None:
            offset, size = (number * itemsize for number in _numbers(key[5][1:], 2))
            if offset + size > elements * itemsize:
                raise MalformedError("a storage view is larger than its storage")
        return View(cls, storage, dtype, offset, size)

    def nested_storage(self, function: Global, data: Any) -> Any:
        """A storage that a plain pickle holds as the bytes of a legacy checkpoint of its own."""
        from nnopt_cli.formats.legacy import read_stream

        if self._nested:
            raise MalformedError("checkpoints lie within checkpoints")
        if isinstance(data, Blob):
            source = Source(data.file, data.offset, data.offset + data.size)
        elif isinstance(data, bytes):
            source = Source(MemoryFile(self.source.file.path, data), 0, len(data))
        else:
            raise MalformedError("a storage is not bytes")
        value = read_stream(source, self.limits, nested=True).tree
        if not isinstance(value, View):
            raise MalformedError("a storage is something else")
        return value


def _extent(values: Any) -> int:
    """How much is copied or walked where `values` are: the items of each, and of each of a tuple's."""
    total = 0
    for value in values:
        value = value.args if isinstance(value, Call) else value
        if isinstance(value, (tuple, list, dict, set, frozenset)):
            total += len(value)
            if isinstance(value, tuple) and len(value) <= _FEW:
                total += sum(len(part) for part in value if isinstance(part, (tuple, list, dict)))
        elif isinstance(value, (str, bytes)):
            total += len(value) >> 6
    return total


def _storage_type(cls: Global) -> tuple[DType | None, int]:
    """Element type, if known, and bytes per element of a storage class."""
    if cls.module in _STORAGE_MODULES:
        if cls.name == _UNTYPED:
            return None, 1
        if cls.name in BY_STORAGE:
            return BY_STORAGE[cls.name], BY_STORAGE[cls.name].itemsize
        if cls.name in _QUANTIZED:
            return None, _QUANTIZED[cls.name]
    raise MalformedError(f"{cls} is not a storage of PyTorch")


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if not isinstance(value, str):
        raise MalformedError("the name of a storage is not text")
    return value


def _numbers(value: Any, count: int | None = None) -> list[int]:
    """A tuple, list or torch.Size of non-negative integers."""
    if isinstance(value, Call) and len(value.args) == 1:
        value = value.args[0]
    plain = isinstance(value, (tuple, list)) and all(type(n) is int and n >= 0 for n in value)
    if not plain or count not in (None, len(value)):
        raise MalformedError("a shape, stride or offset is not made of numbers")
    return list(value)


def _tensor(
    self: Rebuilder, function: Global, view: Any, offset: Any, size: Any, stride: Any, *rest: Any
) -> Leaf | Refused:
    """`_rebuild_tensor` and `_v2` (storage, offset, size, stride[, requires_grad, hooks[, metadata]])."""
    grad, metadata = bool(rest[:1] and rest[0] is True), rest[2] if len(rest) > 2 else None
    if not isinstance(view, View):
        return Refused(function, "has no storage")
    if view.dtype is None:
        return Refused(function, f"has a storage of a type that nnopt does not know ({view.cls})")
    return _checked(function, view, view.dtype, offset, size, stride, grad, metadata)


def _tensor_v3(
    self: Rebuilder, function: Global, view: Any, offset: Any, size: Any, stride: Any, *rest: Any
) -> Leaf | Refused:
    """`_rebuild_tensor_v3`: the same and, after the hooks, the element type."""
    if not isinstance(view, View) or len(rest) < 3:
        return Refused(function, "has no storage or element type")
    dtype = DTYPES.get(rest[2].name) if isinstance(rest[2], Global) and rest[2].module == "torch" else None
    if dtype is None:
        return Refused(function, f"has an element type that nnopt does not know ({_brief(rest[2])})")
    metadata = rest[3] if len(rest) > 3 else None
    return _checked(function, view, dtype, offset, size, stride, rest[0] is True, metadata)


def _checked(
    function: Global, view: View, dtype: DType, offset: Any, size: Any, stride: Any, grad: bool, metadata: Any
) -> Leaf | Refused:
    if isinstance(metadata, dict) and any(metadata.get(flag) for flag in ("conj", "neg")):
        return Refused(function, "is a lazy conjugate or negative; call `.resolve_conj()` before saving it")
    (start,) = _numbers((offset,))
    return view.tensor(dtype, start, _numbers(size), _numbers(stride), grad)


def _parameter(self: Rebuilder, function: Global, data: Any, requires_grad: Any = True, *rest: Any) -> Any:
    if isinstance(data, Leaf):
        return Leaf(data.weight, True, requires_grad is True)
    return data if isinstance(data, Refused) else Refused(function, "is a parameter without a tensor")


def _buffer(self: Rebuilder, function: Global, data: Any = None, *rest: Any) -> Any:
    return data if isinstance(data, (Leaf, Refused)) else Refused(function, "is a buffer without a tensor")


def _typed(self: Rebuilder, function: Global, make: Any, cls: Any, args: Any, state: Any = None) -> Any:
    """`_rebuild_from_type_v2`: a tensor of a class, which must be torch's own."""
    if not isinstance(cls, Global) or str(cls) not in _TENSOR_CLASSES:
        return Refused(function, f"is of the class {_brief(cls)}, whose meaning only its own code knows")
    if not isinstance(make, Global) or not isinstance(args, tuple):
        raise MalformedError("a tensor's description is malformed")
    made = self.call(make, args)
    return _parameter(self, function, made) if cls.name == "Parameter" and isinstance(made, Leaf) else made


def _refuse(reason: str) -> Callable[..., Refused]:
    return lambda self, function, *args: Refused(function, reason)


def _ordered(self: Rebuilder, function: Global, pairs: Any = (), *rest: Any) -> Ordered:
    made = Ordered()
    self.limits.spend(4 * len(pairs) if isinstance(pairs, (list, tuple)) else 0)
    for pair in pairs if isinstance(pairs, (list, tuple)) else ():
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise MalformedError("an OrderedDict is not made of pairs")
        set_items(made, list(pair), self.limits)
    return made


def _plain_dict(self: Rebuilder, function: Global, *args: Any) -> dict[Any, Any]:
    return dict(args[-1]) if args and isinstance(args[-1], dict) else {}


def _set(self: Rebuilder, function: Global, items: Any = (), *rest: Any) -> Any:
    if not isinstance(items, (list, tuple)):
        raise MalformedError("a set is not made of a list")
    keys = [checked_key(item, self.limits) for item in items]
    return frozenset(keys) if function.name == "frozenset" else set(keys)


def _complex(self: Rebuilder, function: Global, real: Any = 0.0, imag: Any = 0.0, *rest: Any) -> complex:
    if not all(type(part) in (int, float) for part in (real, imag)):
        raise MalformedError("a complex number is not made of numbers")
    return complex(real, imag)


def _encode(
    self: Rebuilder, function: Global, text: Any = "", encoding: Any = "latin-1", *rest: Any
) -> bytes:
    """`_codecs.encode` and `bytearray`: how protocol 2 writes bytes."""
    if isinstance(text, bytes):
        return text
    codec = {"latin1": "latin-1", "latin-1": "latin-1", "utf-8": "utf-8", "ascii": "ascii"}.get(str(encoding))
    if not isinstance(text, str) or codec is None:
        raise MalformedError("bytes are not given as text")
    self.limits.hold(len(text))
    return text.encode(codec)


def _size(self: Rebuilder, function: Global, sizes: Any = (), *rest: Any) -> Call:
    return Call(function, (tuple(_numbers(sizes)),))


def _device(self: Rebuilder, function: Global, *args: Any) -> Call:
    if not args or any(type(arg) not in (str, int) for arg in args):
        raise MalformedError("a torch.device is not made of a name and a number")
    return Call(function, args)


def _instance(self: Rebuilder, function: Global, cls: Any = None, *rest: Any) -> Placeholder:
    """`copyreg._reconstructor(cls, base, state)`: an object, in protocols 0 and 1."""
    self._foreign[cls if isinstance(cls, Global) else type(cls).__name__] += 1
    return Placeholder(cls, rest[1:])


def _first(self: Rebuilder, function: Global, value: Any = None, *rest: Any) -> Any:
    """TorchScript's typed lists and dicts: the value itself."""
    return value


def _brief(value: Any) -> str:
    return str(value) if isinstance(value, Global) else type(value).__name__


_TENSOR_CLASSES = {"torch.Tensor", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer"}
_SPARSE = _refuse("is sparse, and nnopt reads dense tensors; convert it with `.to_dense()` before saving")
_DATALESS = _refuse("has no data: it was saved from the meta device, or never initialised")
_WRAPPER = _refuse("is of a tensor subclass without data of its own")

_CALLS: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_tensor_v3"): _tensor_v3,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _parameter,
    ("torch.nn.parameter", "Parameter"): _parameter,
    ("torch.nn.parameter", "Buffer"): _buffer,
    ("torch._tensor", "_rebuild_from_type"): _typed,
    ("torch._tensor", "_rebuild_from_type_v2"): _typed,
    ("torch._utils", "_rebuild_sparse_tensor"): _SPARSE,
    ("torch._utils", "_rebuild_sparse_csr_tensor"): _SPARSE,
    ("torch._utils", "_rebuild_qtensor"): _refuse("is quantized, and nnopt prunes floating tensors only"),
    ("torch._utils", "_rebuild_meta_tensor_no_storage"): _DATALESS,
    ("torch._utils", "_rebuild_wrapper_subclass"): _WRAPPER,
    ("torch.nn.parameter", "UninitializedParameter"): _DATALESS,
    ("torch.nn.parameter", "UninitializedBuffer"): _DATALESS,
    ("torch.storage", "_load_from_bytes"): Rebuilder.nested_storage,
    ("torch", "Size"): _size,
    ("torch", "device"): _device,
    ("torch.serialization", "_get_layout"): lambda self, function, *args: Call(function, args),
    ("torch.jit._pickle", "build_intlist"): _first,
    ("torch.jit._pickle", "build_doublelist"): _first,
    ("torch.jit._pickle", "build_boollist"): _first,
    ("torch.jit._pickle", "build_tensorlist"): _first,
    ("torch.jit._pickle", "restore_type_tag"): _first,
    ("collections", "OrderedDict"): _ordered,
    ("collections", "defaultdict"): _plain_dict,
    ("collections", "Counter"): _plain_dict,
    ("builtins", "set"): _set,
    ("builtins", "frozenset"): _set,
    ("builtins", "complex"): _complex,
    ("builtins", "bytearray"): _encode,
    ("_codecs", "encode"): _encode,
    ("copyreg", "_reconstructor"): _instance,
}
