"""The safetensors writer: one header, then the tensors' bytes without holes.

Source: https://github.com/huggingface/safetensors#format. Tied weights follow its `save_model`: one
name is stored, and the metadata maps each of the others to it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from nnopt_cli.errors import NnoptError
from nnopt_cli.formats.layout import Layout, Sink, Slot, unique
from nnopt_cli.formats.weight import Weight

_ALIGN = 64  # of the first byte of data; the format asks for 8
_MAX_HEADER = 100_000_000  # bytes: readers refuse a longer one
_SLACK = 512  # bytes that the record may grow by while the data streams


class SafetensorsLayout(Layout):
    """One safetensors file.

    The header lists the tensors in the model's order. Their data lies in that order too, unless an odd
    number of narrow elements would leave a wider tensor misaligned: then the widest types come first.
    """

    def __init__(
        self, weights: Mapping[str, Weight], metadata: Mapping[str, str], expected: Mapping[str, str]
    ) -> None:
        """Plan a file of `weights`; `expected` is about what `finish` will be given as strings.

        Raises NnoptError for a tensor that the format cannot hold.
        """
        stored = unique(weights)
        for name, weight in stored.items():
            _check(name, weight)
        order = _data_order(list(stored.values()))
        ends, at = {}, 0
        for weight in order:
            ends[id(weight)] = at = at + weight.nbytes
        self._entries = {
            name: {
                "dtype": weight.dtype.safetensors,
                "shape": list(weight.shape),
                "data_offsets": [ends[id(weight)] - weight.nbytes, ends[id(weight)]],
            }
            for name, weight in stored.items()
        }
        self._metadata = _metadata(weights, stored, metadata)
        self._room = _padded(len(self._header(expected)) + _SLACK)
        if self._room > _MAX_HEADER:
            raise NnoptError(
                f"{len(stored)} tensors need a safetensors header of {self._room:,} bytes; "
                f"readers accept {_MAX_HEADER:,}",
                "Write a folder of shards (-o without a suffix), or a .pt file.",
            )
        self.slots = [Slot(weight, self._room + ends[id(weight)] - weight.nbytes) for weight in order]
        self.size = self._room + at

    def finish(self, sink: Sink, crcs: Sequence[int], strings: Mapping[str, str]) -> int:
        header = self._header(strings)
        if len(header) + 8 > self._room:
            raise NnoptError(
                f"the record of this run takes {len(header) + 8 - self._room} bytes more than "
                "were set aside for it in the header",
                "Give save() results of about the size that the record function showed at first.",
            )
        body = header.ljust(self._room - 8)
        sink.write_at(len(body).to_bytes(8, "little") + body, 0)
        return self.size

    def _header(self, strings: Mapping[str, str]) -> bytes:
        table = {"__metadata__": {**self._metadata, **strings}, **self._entries}
        return json.dumps(table, ensure_ascii=False, separators=(",", ":")).encode()


def _metadata(
    weights: Mapping[str, Weight], stored: Mapping[str, Weight], given: Mapping[str, str]
) -> dict[str, str]:
    """`format: pt`, what the input said, and the tied names as they are now."""
    kept_name = {id(weight): name for name, weight in stored.items()}
    tied = {name: kept_name[id(weight)] for name, weight in weights.items() if name not in stored}
    kept = {key: value for key, value in given.items() if key not in weights}
    return {"format": "pt", **kept, **tied}


def _data_order(weights: list[Weight]) -> list[Weight]:
    at = 0
    for weight in weights:
        if at % weight.dtype.itemsize:
            return sorted(weights, key=lambda w: -w.dtype.itemsize)  # stable: the model's order within a type
        at += weight.nbytes
    return weights


def _check(name: str, weight: Weight) -> None:
    if weight.dtype.safetensors is None:
        raise NnoptError(
            f"{name}: safetensors has no element type for {weight.dtype}",
            "Write a .pt file, which holds every type.",
        )
    if name == "__metadata__":
        raise NnoptError(f"safetensors cannot hold a tensor called {name!r}", "Write a .pt file instead.")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise NnoptError(
            f"safetensors cannot hold the name {name!r}: it is not valid Unicode", "Write a .pt file instead."
        ) from None


def _padded(header: int) -> int:
    """Bytes up to the first byte of data, for a header text of `header` bytes."""
    return -(-(8 + header) // _ALIGN) * _ALIGN
