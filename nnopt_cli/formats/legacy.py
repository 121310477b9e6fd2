"""Torch files from before 1.6 (and `_use_new_zipfile_serialization=False`): pickles, then raw storages.

The layout is that of `torch.serialization._legacy_save`: a magic number, the protocol, facts about the
system, the object, and the storages' keys, each its own pickle; then per key the number of elements
(8 bytes) and the elements.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nnopt_cli.errors import UnreadableError
from nnopt_cli.formats.pickle_ops import run
from nnopt_cli.formats.pickle_source import Limits, MalformedError, Source
from nnopt_cli.formats.rebuild import Rebuilder
from nnopt_cli.formats.storage import Storage

MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001


@dataclass(frozen=True)
class Unpickled:
    """A pickled file's inert tree, and the classes in it that became placeholders."""

    tree: Any
    foreign: dict[str, int]


class _Pending:
    """The storages that the object's pickle names; where they lie is known only after it."""

    def __init__(self, source: Source) -> None:
        self._file = source.file
        self.known: dict[str, Storage] = {}

    def storage(self, key: str, size: int, itemsize: int) -> Storage:
        found = self.known.setdefault(key, Storage(self._file, size, itemsize))
        if found.size != size:
            raise MalformedError(f"storage {key!r} is claimed to have {found.size} and {size} bytes")
        return found


def read_stream(source: Source, limits: Limits, nested: bool = False) -> Unpickled:
    """Read a legacy file's pickles and place its storages; no tensor data is read.

    Raises MalformedError for a broken pickle and UnreadableError for broken data.
    """
    bare = Rebuilder(source, None, limits)
    if run(source, bare, limits) != MAGIC:
        raise MalformedError("it does not begin with PyTorch's magic number")
    if (protocol := run(source, bare, limits)) != _PROTOCOL:
        raise MalformedError(f"its protocol is {protocol!s:.20}, not {_PROTOCOL}")
    system = run(source, bare, limits)
    if isinstance(system, dict) and system.get("little_endian") is False:
        raise big_endian(source)
    pending = _Pending(source)
    builder = Rebuilder(source, pending, limits, nested)
    tree = run(source, builder, limits)
    keys = run(source, bare, limits)
    _place(source, pending.known, keys)
    return Unpickled(tree, dict(builder.foreign))


def big_endian(source: Source) -> UnreadableError:
    """The error for a file from a machine of the other byte order."""
    return UnreadableError(
        f"{source.file.path}: it was saved on a big-endian machine",
        "Load it with torch.load and save it again on this one.",
    )


def _place(source: Source, known: dict[str, Storage], keys: Any) -> None:
    """Find each storage's bytes. They follow one another in the order of `keys`."""
    if not isinstance(keys, list):
        raise MalformedError("it does not list its storages")
    at = source.position
    for key in keys:
        name = key.decode("latin-1") if isinstance(key, bytes) else key
        storage = known.get(name) if isinstance(name, str) else None
        if storage is None or storage.placed:
            raise MalformedError(f"storage {name!r:.40} is listed and not used, or listed twice")
        head = source.file.read(at, 8) if at + 8 <= source.end else b""
        if len(head) < 8 or at + 8 + storage.size > source.end:
            raise UnreadableError(
                f"{source.file.path}: truncated: it ends at byte {source.end}, before or inside a tensor "
                f"that needs {storage.size} bytes from byte {at + 8} on",
                "Download or copy it again; compare its size with the original's.",
            )
        count = int.from_bytes(head, "little", signed=True)
        if count * storage.itemsize != storage.size:
            raise MalformedError(f"storage {name!r:.40} has {count} elements and claims others")
        storage.place(at + 8)
        at += 8 + storage.size
    if missing := [name for name, storage in known.items() if not storage.placed]:
        raise MalformedError(f"storage {missing[0]!r:.40} has no data")
