"""The directory of a zip archive, read with no trust in it: members are stretches of the file.

Source: PKWARE's APPNOTE 6.3.10, sections 4.3 and 4.5. Nothing is ever extracted or inflated. Refused is
whatever two readers could understand differently: a member twice, members that overlap, headers that
disagree, anything before, between or behind that the directory does not account for.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from nnopt_cli.errors import UnreadableError
from nnopt_cli.formats.weight import InputFile

_END = struct.Struct("<4s4H2IH")
_LOCATOR = struct.Struct("<4sIQI")
_END64 = struct.Struct("<4sQ2H2I4Q")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_LOCAL = struct.Struct("<4s5H3I2H")
_MOST_MEMBERS = 100_000
_MOST_BYTES = 64 << 20  # of directory


@dataclass(frozen=True, slots=True)
class Member:
    """A member: `size` bytes from byte `start` of the file on, if it is stored as it is."""

    name: str
    start: int
    size: int
    stored: bool
    crc: int = 0  # crc32 that its bytes should have


@dataclass(frozen=True, slots=True)
class _Entry:
    """A member as the directory describes it."""

    name: bytes
    header: int
    packed: int
    size: int
    method: int
    flags: int
    crc: int


def members_of(file: InputFile) -> dict[str, Member]:
    """Every member by name, in the order of the directory.

    Raises UnreadableError for an archive that is broken, or that readers could disagree about.
    """
    count, start, size = _find_directory(file)
    raw = file.read(start, size)
    entries, at = [], 0
    for _ in range(count):
        entry, at = _entry(file, raw, at)
        entries.append(entry)
    if at != size:
        raise _broken(file, "its directory holds more than its members")
    return _located(file, entries, start)


def _find_directory(file: InputFile) -> tuple[int, int, int]:
    """Number of members, and the directory's first byte and size."""
    tail_start = max(0, file.size - _END.size - 0xFFFF)
    tail = file.read(tail_start, file.size - tail_start)
    at = tail.rfind(b"PK\5\6")
    if at < 0 or at + _END.size > len(tail):
        raise UnreadableError(
            f"{file.path}: the zip archive has no directory at its end, so it was cut short",
            "Download or copy it again; compare its size with the original's.",
        )
    end = tail_start + at
    _, disk, first_disk, here, count, size, start, comment = _END.unpack_from(tail, at)
    if end + _END.size + comment != file.size:
        raise _broken(file, "there is something behind its end")
    limit = end
    if end >= _LOCATOR.size and file.read(end - _LOCATOR.size, 4) == b"PK\6\7":
        claimed = (disk, first_disk, here, count, size, start)
        limit, (disk, first_disk, here, count, size, start) = _wide_end(file, end - _LOCATOR.size, claimed)
    if disk or first_disk or here != count:
        raise _broken(file, "it is split over several files")
    if count > _MOST_MEMBERS or size > _MOST_BYTES:
        raise _broken(file, f"it claims {count} members in a directory of {size} bytes")
    if start + size != limit:
        raise _broken(file, "its directory is not where it claims to be")
    return count, start, size


def _wide_end(file: InputFile, locator: int, claimed: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
    """The 64-bit figures, which must agree with every 32-bit one that is not left open."""
    _, disk, at, disks = _LOCATOR.unpack(file.read(locator, _LOCATOR.size))
    if disk or disks != 1 or at + _END64.size != locator:
        raise _broken(file, "its 64-bit directory record is not where it claims to be")
    mark, length, _, _, *wide = _END64.unpack(file.read(at, _END64.size))
    if mark != b"PK\6\6" or length != _END64.size - 12:
        raise _broken(file, "its 64-bit directory record is malformed")
    for short, long, open_value in zip(claimed, wide, [0xFFFF] * 4 + [0xFFFFFFFF] * 2, strict=True):
        if short not in (long, open_value):
            raise _broken(file, "its 32-bit and 64-bit directory records disagree")
    return at, tuple(wide)


def _entry(file: InputFile, raw: bytes, at: int) -> tuple[_Entry, int]:
    """The directory's entry at byte `at` of it, and where the next one begins."""
    if at + _CENTRAL.size > len(raw) or raw[at : at + 4] != b"PK\1\2":
        raise _broken(file, "its directory is malformed")
    fields = _CENTRAL.unpack_from(raw, at)
    flags, method, packed, size = fields[3], fields[4], fields[8], fields[9]
    name_size, extra_size, comment_size, disk, header = *fields[10:14], fields[16]
    name_at = at + _CENTRAL.size
    end = name_at + name_size + extra_size + comment_size
    if end > len(raw):
        raise _broken(file, "its directory is malformed")
    name = raw[name_at : name_at + name_size]
    if 0xFFFFFFFF in (packed, size, header):
        extra = raw[name_at + name_size : name_at + name_size + extra_size]
        size, packed, header = _wide_fields(file, extra, [size, packed, header])
    if disk not in (0, 0xFFFF):
        raise _broken(file, "it is split over several files")
    return _Entry(name, header, packed, size, method, flags, fields[7]), end


def _wide_fields(file: InputFile, extra: bytes, values: list[int]) -> list[int]:
    """Size, packed size and header offset, each from the 64-bit field where the 32-bit one is left open."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == 1:
            body = extra[at + 4 : at + 4 + length]
            wide = [int.from_bytes(body[i : i + 8], "little") for i in range(0, len(body) - 7, 8)]
            if len(wide) >= values.count(0xFFFFFFFF):
                return [wide.pop(0) if value == 0xFFFFFFFF else value for value in values]
            break
        at += 4 + length
    raise _broken(file, "a member lacks its 64-bit sizes")


def _located(file: InputFile, entries: list[_Entry], limit: int) -> dict[str, Member]:
    """Where each member's data lies, after comparing its two headers; in the directory's order."""
    found: dict[bytes, Member] = {}
    end = 0
    for entry in sorted(entries, key=lambda entry: entry.header):
        try:
            name = entry.name.decode()
        except UnicodeDecodeError:
            raise _broken(
                file, f"the name of a member is not UTF-8 ({entry.name[:40].decode('latin-1')!r})"
            ) from None
        if entry.flags & 1:
            raise UnreadableError(f"{file.path}: its member {name!r} is encrypted", "Decrypt it first.")
        if entry.name in found:
            raise _broken(file, f"it holds {name!r} twice")
        if entry.header < end:
            raise _broken(file, f"{name!r} overlaps another member")
        start = _data_start(file, entry, name)
        end = start + entry.packed
        if end > limit:
            raise _broken(file, f"{name!r} reaches beyond the archive's data")
        if entry.method == 0 and entry.packed != entry.size:
            raise _broken(file, f"{name!r} is stored in {entry.packed} bytes and claims {entry.size}")
        found[entry.name] = Member(name, start, entry.size, entry.method == 0, entry.crc)
    return {found[entry.name].name: found[entry.name] for entry in entries}


def _data_start(file: InputFile, entry: _Entry, name: str) -> int:
    """Where the data begins, by the local header, which must say what the directory says."""
    raw = file.read(entry.header, _LOCAL.size + len(entry.name))
    if len(raw) < _LOCAL.size or raw[:4] != b"PK\3\4":
        raise _broken(file, f"{name!r} is not where the directory says")
    _, _, flags, method, _, _, _, packed, size, name_size, extra_size = _LOCAL.unpack_from(raw)
    later = flags & 8  # sizes follow the data
    agree = all(
        there == here or there == 0xFFFFFFFF or (later and there == 0)
        for there, here in ((packed, entry.packed), (size, entry.size))
    )
    if (
        name_size != len(entry.name)
        or raw[_LOCAL.size :] != entry.name
        or method != entry.method
        or not agree
    ):
        raise _broken(file, f"the two headers of {name!r} disagree")
    return entry.header + _LOCAL.size + int(name_size) + int(extra_size)


def _broken(file: InputFile, reason: str) -> UnreadableError:
    return UnreadableError(
        f"{file.path}: the zip archive is broken: {reason}",
        "Download it again, or save it again with torch.save.",
    )
