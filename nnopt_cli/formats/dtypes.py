"""The element types that checkpoints hold, under torch's names.

numpy has no bfloat16 and no float8, so every type also has a *word*: the unsigned integer or
native numpy type that holds its bits unchanged. Raw tensor data moves through nnopt as words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nnopt_cli.errors import UnreadableError

Kind = Literal["float", "float8", "int", "bool", "complex"]


@dataclass(frozen=True, slots=True)
class DType:
    """One element type.

    Attributes:
        name: torch's name, e.g. `bfloat16`.
        itemsize: bytes per element.
        kind: `float` (16, 32 or 64 bits: what pruning works on), or what else it is.
        word: numpy dtype string, little-endian, that holds the bits of one element.
        safetensors: its name in a safetensors header, or None where that format has none.
        storage: torch's typed storage class in a pickle, or None (written as an untyped storage).
    """

    name: str
    itemsize: int
    kind: Kind
    word: str
    safetensors: str | None = None
    storage: str | None = None

    def __str__(self) -> str:
        return self.name


_ALL = (
    DType("float64", 8, "float", "<f8", "F64", "DoubleStorage"),
    DType("float32", 4, "float", "<f4", "F32", "FloatStorage"),
    DType("float16", 2, "float", "<f2", "F16", "HalfStorage"),
    DType("bfloat16", 2, "float", "<u2", "BF16", "BFloat16Storage"),
    DType("float8_e4m3fn", 1, "float8", "|u1", "F8_E4M3"),
    DType("float8_e5m2", 1, "float8", "|u1", "F8_E5M2"),
    DType("float8_e4m3fnuz", 1, "float8", "|u1"),
    DType("float8_e5m2fnuz", 1, "float8", "|u1"),
    DType("float8_e8m0fnu", 1, "float8", "|u1", "F8_E8M0"),
    DType("int64", 8, "int", "<i8", "I64", "LongStorage"),
    DType("int32", 4, "int", "<i4", "I32", "IntStorage"),
    DType("int16", 2, "int", "<i2", "I16", "ShortStorage"),
    DType("int8", 1, "int", "|i1", "I8", "CharStorage"),
    DType("uint8", 1, "int", "|u1", "U8", "ByteStorage"),
    DType("uint16", 2, "int", "<u2", "U16"),
    DType("uint32", 4, "int", "<u4", "U32"),
    DType("uint64", 8, "int", "<u8", "U64"),
    DType("bool", 1, "bool", "|u1", "BOOL", "BoolStorage"),  # u1: a file may hold other bytes than 0 and 1
    DType("complex32", 4, "complex", "<u4"),
    DType("complex64", 8, "complex", "<c8", "C64", "ComplexFloatStorage"),
    DType("complex128", 16, "complex", "<c16", None, "ComplexDoubleStorage"),
)
DTYPES = {d.name: d for d in _ALL}
BY_SAFETENSORS = {d.safetensors: d for d in _ALL if d.safetensors}
BY_STORAGE = {d.storage: d for d in _ALL if d.storage}


def dtype_named(name: str) -> DType:
    """The type called `name` (torch's name). Raises UnreadableError for an unknown one."""
    try:
        return DTYPES[name]
    except KeyError:
        raise UnreadableError(f"element type {name!r} is not one that nnopt knows") from None
