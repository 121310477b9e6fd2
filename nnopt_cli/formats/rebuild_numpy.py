"""numpy's scalars and arrays inside a pickle: scalars become Python numbers, arrays become lazy tensors.

The calls are those of numpy 1 and 2 (`numpy.core.multiarray` and `numpy._core.multiarray`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nnopt_cli.formats.dtypes import DTYPES, DType
from nnopt_cli.formats.inert import Blob, Global, NdArray, Placeholder, Refused
from nnopt_cli.formats.pickle_source import MalformedError
from nnopt_cli.formats.storage import MemoryFile, Storage, View, row_major
from nnopt_cli.formats.weight import InputFile

_TYPES = {
    "f8": "float64",
    "f4": "float32",
    "f2": "float16",
    "i8": "int64",
    "i4": "int32",
    "i2": "int16",
    "i1": "int8",
    "u8": "uint64",
    "u4": "uint32",
    "u2": "uint16",
    "u1": "uint8",
    "b1": "bool",
    "c8": "complex64",
    "c16": "complex128",
}


class NpDtype(Placeholder):
    """A numpy dtype: its code (`f4`) and byte order (`<`, `>`, `|` or `=`)."""

    __slots__ = ("code", "order")

    def __init__(self, cls: Global, code: str) -> None:
        super().__init__(cls)
        self.code = code.lstrip("<>=|")
        self.order = code[:1] if code[:1] in ("<", ">") else "="

    @property
    def dtype(self) -> DType | None:
        """The same as an element type of ours, or None where there is none."""
        return DTYPES.get(_TYPES.get(self.code, self.code)) if self.order != ">" else None


def set_dtype_state(value: NpDtype, state: Any) -> None:
    """`dtype.__setstate__`: only the byte order matters here."""
    if not isinstance(state, tuple) or len(state) < 2 or not isinstance(state[1], (str, bytes)):
        raise MalformedError("a numpy dtype is malformed")
    order = state[1].decode("latin-1") if isinstance(state[1], bytes) else state[1]
    value.order = order if order in ("<", ">") else "="


def set_state(file: InputFile, array: NdArray, state: Any) -> None:
    """`ndarray.__setstate__((version, shape, dtype, is_fortran, data))`."""
    if not isinstance(state, tuple) or len(state) != 5:
        raise MalformedError("a numpy array is malformed")
    array.content = _content(file, array.cls, *state[1:])


def _content(file: InputFile, cls: Global, shape: Any, dtype: Any, fortran: Any, data: Any) -> Any:
    if not isinstance(shape, tuple) or not all(type(n) is int for n in shape):
        raise MalformedError("the shape of a numpy array is malformed")
    kind = dtype.dtype if isinstance(dtype, NpDtype) else None
    if kind is None:
        return Refused(cls, "is a numpy array of a type that tensors do not have")
    if isinstance(data, str):
        data = data.encode("latin-1")
    if isinstance(data, Blob):
        storage = Storage(data.file, data.size, kind.itemsize, data.offset)
    elif isinstance(data, bytes):
        storage = Storage(MemoryFile(file.path, data), len(data), kind.itemsize, 0)
    else:
        raise MalformedError("the data of a numpy array is malformed")
    steps = row_major(shape[::-1])[::-1] if fortran is True else row_major(shape)
    return View(cls, storage, kind, 0, storage.size).tensor(kind, 0, shape, steps, False)


def _reconstruct(file: InputFile, function: Global, cls: Any = None, *rest: Any) -> Placeholder:
    if isinstance(cls, Global) and str(cls) == "numpy.ndarray":
        return NdArray(cls)
    return Placeholder(cls, rest)


def _from_buffer(
    file: InputFile, function: Global, data: Any, dtype: Any, shape: Any, order: Any = "C"
) -> Any:
    array = NdArray(function)
    array.content = _content(file, function, shape, dtype, order == "F", data)
    return array


def _dtype(file: InputFile, function: Global, code: Any = None, *rest: Any) -> Placeholder:
    if isinstance(code, Global) and code.module == "ml_dtypes":
        code = code.name
    if isinstance(code, bytes):
        code = code.decode("latin-1")
    return NpDtype(function, code) if isinstance(code, str) else Placeholder(function, (code, *rest))


def _scalar(file: InputFile, function: Global, dtype: Any = None, data: Any = b"", *rest: Any) -> Any:
    kind = dtype.dtype if isinstance(dtype, NpDtype) else None
    if isinstance(data, str):
        data = data.encode("latin-1")
    if kind is None or not isinstance(data, bytes) or dtype.code not in _TYPES:
        return Placeholder(function, (dtype, data))  # a string or a date
    if len(data) != kind.itemsize:
        raise MalformedError("a numpy scalar is malformed")
    word = "?" if kind.kind == "bool" else kind.word
    return np.frombuffer(data, word)[0].item()


NUMPY: dict[str, Callable[..., Any]] = {
    "_reconstruct": _reconstruct,
    "_frombuffer": _from_buffer,
    "dtype": _dtype,
    "scalar": _scalar,
}
