"""A tensor in a `.pt2` archive: a view of a record of raw bytes, checked against the record's size."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nnopt_cli.formats.dtypes import DTYPES, DType
from nnopt_cli.formats.pt2_records import RefusedError, show
from nnopt_cli.formats.pt2_schema import SCALAR_TYPES
from nnopt_cli.formats.storage import MOST_DIMENSIONS
from nnopt_cli.formats.zip_read import Member


@dataclass(frozen=True)
class Payload:
    """A tensor as the archive describes it.

    Attributes:
        name: its name in the state dict, or among the constants.
        member: the record that it lies in, perhaps with others.
        dtype: its element type.
        sizes: its dimensions.
        strides: in elements; the tensor lies within the record.
        offset: of its first element in the record, in elements.
        parameter: whether it is a parameter.
        requires_grad: whether it is trained.
        meta: its record in the table of weights.
    """

    name: str
    member: Member
    dtype: DType
    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int
    parameter: bool
    requires_grad: bool
    meta: Mapping[str, Any]


def payload_of(members: Mapping[str, Member], kind: str, name: str, entry: Mapping[str, Any]) -> Payload:
    """What an entry of the table of weights, or of constants, describes. Raises RefusedError."""
    if entry["use_pickle"]:
        raise RefusedError(
            "it is stored as a pickle, which is how PyTorch keeps tensors of its own or others' subclasses",
            "Convert quantized and other special tensors to plain ones before the export.",
        )
    meta, path = entry["tensor_meta"], entry["path_name"]
    member = members.get(f"data/{kind}/{path}")
    if meta is None or member is None or not re.fullmatch(r"(weight|tensor)_\d{1,9}", path):
        raise RefusedError(f"its data is missing: there is no record {show(path)}")
    sizes = tuple(size["as_int"] for size in meta["sizes"])
    strides = tuple(size["as_int"] for size in meta["strides"])
    offset = meta["storage_offset"]["as_int"]
    dtype = DTYPES[SCALAR_TYPES[meta["dtype"]]]
    if meta["requires_grad"] and dtype.kind in ("int", "bool"):
        raise RefusedError(f"it is of {dtype} and claims to be trained")
    _check_extent(member, dtype, sizes, strides, offset)
    return Payload(
        name, member, dtype, sizes, strides, offset, entry["is_param"], meta["requires_grad"], meta
    )


def _check_extent(
    member: Member, dtype: DType, sizes: tuple[int, ...], strides: tuple[int, ...], offset: int
) -> None:
    """The tensor must lie within its record, and not claim more elements than that has."""
    if len(sizes) != len(strides) or len(sizes) > MOST_DIMENSIONS:
        raise RefusedError(f"it has {len(sizes)} dimensions and {len(strides)} strides")
    room, rest = divmod(member.size, dtype.itemsize)
    if rest:
        raise RefusedError(f"its record has {member.size:,} bytes, not a whole number of {dtype} elements")
    count = math.prod(sizes)
    if not count:
        return
    if not room:
        raise RefusedError(
            "the file was saved without its weights", "Save it from the real model, not from a fake one."
        )
    if count > room:
        raise RefusedError(f"it claims {count:,} elements, and its record holds {room:,}")
    if offset + sum((n - 1) * step for n, step in zip(sizes, strides, strict=True)) >= room:
        raise RefusedError(f"its strides reach beyond its record of {room:,} elements")
