"""safetensors files: an 8-byte length, a JSON header, and the tensors' bytes, back to back.

Source: the format's description, https://github.com/huggingface/safetensors#format. Everything that it
demands is checked here, and so is what it leaves open: a key must not come twice, and no byte of the data may
belong to two tensors or to none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from nnopt_cli.errors import UnreadableError
from nnopt_cli.formats.dtypes import BY_SAFETENSORS, DType
from nnopt_cli.formats.json_read import parse_object
from nnopt_cli.formats.storage import MOST_DIMENSIONS
from nnopt_cli.formats.weight import FileWeight, InputFile, Weight

HEADER_BYTES = 16 << 20
_AGAIN = "The file is damaged or was not written by safetensors: download it again."


@dataclass(frozen=True)
class Header:
    """A safetensors file as read.

    Attributes:
        weights: its tensors in the header's order, then the names that are tied to one of them.
        metadata: its `__metadata__`, without the entries that said which names are tied.
    """

    weights: dict[str, Weight]
    metadata: dict[str, str]


def read_safetensors(file: InputFile) -> Header:
    """Read and check the header. Raises UnreadableError."""
    length = int.from_bytes(file.read(0, 8), "little")
    if length > HEADER_BYTES:
        raise UnreadableError(
            f"{file.path}: its header claims {length} bytes; {HEADER_BYTES} are the most that nnopt reads",
            _AGAIN,
        )
    if 8 + length > file.size:
        raise UnreadableError(
            f"{file.path}: truncated: it ends at byte {file.size}, inside its header", _AGAIN
        )
    try:
        table = parse_object(file.read(8, length))
        metadata = _metadata(table.pop("__metadata__", {}))
        weights, ends = {}, []
        for name, entry in table.items():
            dtype, shape, begin, end = _entry(name, entry)
            weights[name] = FileWeight(name, dtype, shape, file, 8 + length + begin)
            ends.append((begin, end, name))
        _check_cover(sorted(ends), file.size - 8 - length)
    except ValueError as error:
        raise UnreadableError(f"{file.path}: its header {error}", _AGAIN) from error
    tied = {name: kept for name, kept in metadata.items() if kept in weights and name not in weights}
    ties = {name: weights[kept] for name, kept in tied.items()}  # names that safetensors' save_model left out
    return Header({**weights, **ties}, {key: text for key, text in metadata.items() if key not in tied})


def _metadata(table: Any) -> dict[str, str]:
    if not isinstance(table, dict) or not all(isinstance(value, str) for value in table.values()):
        raise ValueError("has a __metadata__ that is not a table of strings")
    return table


def _entry(name: str, entry: Any) -> tuple[DType, tuple[int, ...], int, int]:
    """Element type, shape, first and last byte of one tensor."""
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"describes {name!r:.120} by other things than dtype, shape and data_offsets")
    dtype = BY_SAFETENSORS.get(entry["dtype"]) if isinstance(entry["dtype"], str) else None
    if dtype is None:
        raise ValueError(
            f"gives {name!r:.120} the element type {entry['dtype']!r:.40}, which nnopt does not know"
        )
    shape, offsets = entry["shape"], entry["data_offsets"]
    if not _numbers(shape) or len(shape) > MOST_DIMENSIONS:
        raise ValueError(f"gives {name!r:.120} the impossible shape {shape!r:.80}")
    if not _numbers(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise ValueError(f"gives {name!r:.120} the impossible offsets {offsets!r:.80}")
    size = math.prod(shape) * dtype.itemsize
    if math.prod(max(1, n) for n in shape) >= 1 << 62:
        raise ValueError(f"gives {name!r:.120} the impossible shape {shape!r:.80}")
    if size != offsets[1] - offsets[0]:
        raise ValueError(
            f"gives {name!r:.120} {offsets[1] - offsets[0]} bytes; {dtype} {shape!r:.80} takes {size}"
        )
    return dtype, tuple(shape), offsets[0], offsets[1]


def _numbers(value: Any) -> bool:
    return isinstance(value, list) and all(type(n) is int and 0 <= n < 1 << 63 for n in value)


def _check_cover(spans: list[tuple[int, int, str]], size: int) -> None:
    """Every byte of the data must belong to exactly one tensor."""
    at, last = 0, ""
    for begin, end, name in spans:
        if begin < at:
            raise ValueError(f"puts {name!r:.120} over {last!r:.120}")
        if begin > at:
            raise ValueError(f"leaves a hole of {begin - at} bytes before {name!r:.120}")
        at, last = end, name
    if at > size:
        raise ValueError(f"promises {at} bytes of data and the file has {size}: it was truncated")
    if at < size:
        raise ValueError(
            f"accounts for {at} bytes of data and the file has {size}: something follows the tensors"
        )
