"""The writer of torch's zip checkpoints, without torch: what `torch.save` of PyTorch 2.13 would lay out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any
from zlib import crc32

from nnopt_cli.formats.layout import Layout, Sink, Slot
from nnopt_cli.formats.pickle_write import dump
from nnopt_cli.formats.zip_write import ALIGN, Member, directory, place

RECORD = "nnopt.json"  # beside data.pkl: a JSON object of the nnopt.* strings, which torch.load ignores
_ROOT = "archive"
_SLACK = 4096  # bytes that the record may grow by without the free space having been checked for them


class TorchLayout(Layout):
    """One `.pt` file: a pickled tree, one stored member per storage, and nnopt's record last."""

    crc = True

    def __init__(self, tree: Any, expected: Mapping[str, str]) -> None:
        """Plan a file of `tree` (see `formats/inert.py`); `expected` is about what `finish` will be given.

        Raises NnoptError for what a checkpoint cannot hold.
        """
        self._pickle, weights = dump(tree)
        head = {
            "data.pkl": self._pickle,
            ".format_version": b"1",
            ".storage_alignment": str(ALIGN).encode(),
            "byteorder": b"little",
        }
        self._small: list[tuple[Member, bytes]] = []
        self._end = 0
        for name, content in head.items():
            self._add(name, content)
        self._data = []
        for key, weight in enumerate(weights):
            self._data.append(place(f"{_ROOT}/data/{key}", weight.nbytes, self._end))
            self._end = self._data[-1].end
        self.slots = [Slot(w, member.data) for w, member in zip(weights, self._data, strict=True)]
        self._add("version", b"3\n")
        tail = 200 * (len(weights) + 8) + _SLACK  # the directory: 46 bytes and a short name for each member
        self.size = self._end + len(_record(expected)) + tail

    def _add(self, name: str, content: bytes) -> None:
        member = place(f"{_ROOT}/{name}", len(content), self._end)
        self._small.append((member, content))
        self._end = member.end

    def finish(self, sink: Sink, crcs: Sequence[int], strings: Mapping[str, str]) -> int:
        self._add(".data/serialization_id", _serialization_id(self._pickle, crcs))
        self._add(RECORD, _record(strings))
        for member, content in self._small:
            sink.write_at(member.local_header() + content + member.descriptor(crc32(content)), member.header)
        for member, crc in zip(self._data, crcs, strict=True):
            sink.write_at(member.local_header(), member.header)
            sink.write_at(member.descriptor(crc), member.data + member.size)
        checks = {member: crc32(content) for member, content in self._small}
        checks.update(zip(self._data, crcs, strict=True))
        members = sorted(checks, key=lambda member: member.header)
        closing = directory(members, [checks[member] for member in members], self._end)
        sink.write_at(closing, self._end)
        sink.cut(self._end + len(closing))
        return self._end + len(closing)


def _record(strings: Mapping[str, str]) -> bytes:
    return json.dumps(dict(strings), sort_keys=True).encode()


def _serialization_id(pickled: bytes, crcs: Sequence[int]) -> bytes:
    """40 digits that tell contents apart, as torch writes: 20 for the structure and 20 for the data."""
    sums = b"".join(crc.to_bytes(4, "little") for crc in crcs)
    return b"".join(
        b"%020d" % (int.from_bytes(sha256(part).digest()[:8], "little")) for part in (pickled, sums)
    )
