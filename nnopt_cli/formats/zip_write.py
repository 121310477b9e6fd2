"""A zip archive whose layout is known before its data: members stored, aligned, laid out as torch does.

`torch.load` computes where a member's data begins instead of reading it where it can, so the
padding and the data descriptors follow `torch.save` byte for byte (PyTorch 2.13, inline_container.cc
`getPadding`; miniz `mz_zip_writer_add_mem_ex_v2`). Sizes past 4 GiB: APPNOTE 6.3.10, section 4.5.3.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

ALIGN = 64  # bytes: every member's data starts at a multiple of it
_MAX = 0xFFFFFFFF  # a size or offset of this much or more is written as a zip64 field
_FLAGS, _FLAGS_EMPTY = 0x0808, 0x0800  # UTF-8 name; bit 3: sizes and crc32 follow the data
_JANUARY_1980 = 0x0021  # the first day that the format can say


@dataclass(frozen=True, slots=True)
class Member:
    """A stored member.

    Attributes:
        name: its full name.
        size: bytes of its data.
        header: where its local header begins.
        data: where its data begins.
    """

    name: bytes
    size: int
    header: int
    data: int

    @property
    def wide(self) -> bool:
        """Whether a size or an offset of it needs 64 bits."""
        return self.size >= _MAX or self.header >= _MAX

    @property
    def end(self) -> int:
        """Where the next local header begins."""
        return self.data + self.size + (0 if not self.size else 24 if self.wide else 16)

    def local_header(self) -> bytes:
        """Everything from `header` to `data`."""
        extra = self._zip64()
        padding = self.data - self.header - 34 - len(self.name) - len(extra)
        extra += b"FB" + struct.pack("<H", padding) + b"Z" * padding
        flags = _FLAGS if self.size else _FLAGS_EMPTY
        sizes = (len(self.name), len(extra))
        fixed = struct.pack(
            "<4s5H3I2H", b"PK\3\4", self._version, flags, 0, 0, _JANUARY_1980, 0, 0, 0, *sizes
        )
        return fixed + self.name + extra

    def descriptor(self, crc: int) -> bytes:
        """What follows the data."""
        if not self.size:
            return b""
        return struct.pack("<4sI2Q" if self.wide else "<4s3I", b"PK\7\x08", crc, self.size, self.size)

    def central(self, crc: int) -> bytes:
        """Its entry in the central directory."""
        extra = self._zip64()
        size = min(self.size, _MAX)
        flags = _FLAGS if self.size else _FLAGS_EMPTY
        fixed = struct.pack(
            "<4s6H3I", b"PK\1\2", 0, self._version, flags, 0, 0, _JANUARY_1980, crc, size, size
        )
        lengths = struct.pack("<5H2I", len(self.name), len(extra), 0, 0, 0, 0, min(self.header, _MAX))
        return fixed + lengths + self.name + extra

    @property
    def _version(self) -> int:
        return 45 if self.wide else 0

    def _zip64(self) -> bytes:
        fields = [self.size] * 2 if self.size >= _MAX else []
        fields += [self.header] if self.header >= _MAX else []
        return struct.pack(f"<2H{len(fields)}Q", 1, 8 * len(fields), *fields) if fields else b""


def place(name: str, size: int, header: int) -> Member:
    """The member of `size` bytes whose local header begins at byte `header`."""
    raw = name.encode()
    wide = 16 * (size >= _MAX) + 8 * (header >= _MAX)
    start = header + 34 + len(raw) + (4 + wide if wide else 0)
    return Member(raw, size, header, start + -start % ALIGN)


def directory(members: Sequence[Member], crcs: Sequence[int], start: int) -> bytes:
    """The central directory and everything after it, which begins at byte `start`."""
    entries = b"".join(member.central(crc) for member, crc in zip(members, crcs, strict=True))
    count, end = len(members), start + len(entries)
    wide_end = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, len(entries), start)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, end, 1)
    short = min(count, 0xFFFF)
    last = struct.pack(
        "<4s4H2IH", b"PK\5\6", 0, 0, short, short, min(len(entries), _MAX), min(start, _MAX), 0
    )
    return entries + wide_end + locator + last
