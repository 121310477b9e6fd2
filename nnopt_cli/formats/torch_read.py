"""Torch's zip checkpoints and TorchScript archives, and plain pickles: from bytes to an inert tree."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from nnopt_cli.errors import UnreadableError
from nnopt_cli.formats.checkpoint import Format
from nnopt_cli.formats.inert import printable
from nnopt_cli.formats.json_read import nnopt_strings, parse_object
from nnopt_cli.formats.legacy import big_endian, read_stream
from nnopt_cli.formats.pickle_ops import run
from nnopt_cli.formats.pickle_source import Limits, MalformedError, Source
from nnopt_cli.formats.rebuild import Rebuilder
from nnopt_cli.formats.storage import Storage
from nnopt_cli.formats.weight import InputFile
from nnopt_cli.formats.zip_read import Member

RECORD = "nnopt.json"
_RECORD_BYTES = 16 << 20


@dataclass(frozen=True)
class Tree:
    """A pickled file as read: the format, the inert tree, and what else the file said.

    Attributes:
        format: what its bytes are.
        root: the pickle's value.
        foreign: classes that became placeholders, and how often.
        provenance: nnopt's own record.
    """

    format: Format
    root: Any
    foreign: Mapping[str, int]
    provenance: Mapping[str, str] = field(default_factory=dict)


def read_legacy(file: InputFile) -> Tree:
    """A file from before PyTorch 1.6. Raises UnreadableError."""
    with _explained(file):
        found = read_stream(Source(file, 0, file.size), Limits())
    return Tree("torch-legacy", found.tree, found.foreign)


def read_plain_pickle(file: InputFile) -> Tree:
    """A file that `pickle.dump` wrote. Raises UnreadableError."""
    with _explained(file):
        limits, source = Limits(), Source(file, 0, file.size)
        builder = Rebuilder(source, None, limits)
        root = run(source, builder, limits)
    return Tree("pickle", root, builder.foreign)


def read_archive(file: InputFile, members: Mapping[str, Member]) -> Tree:
    """A zip that `torch.save` or `torch.jit.save` wrote. Raises UnreadableError."""
    root = _root(file, members)
    script = f"{root}constants.pkl" in members
    if not script and any(not member.stored for member in members.values()):
        raise compressed(file, next(member for member in members.values() if not member.stored))
    order = members.get(f"{root}byteorder")
    if order is not None and (said := file.read(order.start, min(order.size, 16))) != b"little":
        if said == b"big":
            raise big_endian(Source(file, 0, 0))
        raise UnreadableError(
            f"{file.path}: its byte order is {said.decode('latin-1')!r}, neither little nor big"
        )
    pickled = members[f"{root}data.pkl"]
    if not pickled.stored:
        raise compressed(file, pickled)
    with _explained(file):
        limits, source = Limits(), Source(file, pickled.start, pickled.start + pickled.size)
        builder = Rebuilder(source, _Members(file, members, root), limits)
        tree = run(source, builder, limits)
    return Tree(
        "torchscript" if script else "torch",
        tree,
        builder.foreign,
        _provenance(file, members.get(root + RECORD)),
    )


class _Members:
    """Storages that are members of an archive."""

    def __init__(self, file: InputFile, members: Mapping[str, Member], root: str) -> None:
        self._file = file
        self._members = members
        self._root = root
        self._known: dict[str, Storage] = {}

    def storage(self, key: str, size: int, itemsize: int) -> Storage:
        member = self._members.get(f"{self._root}data/{key}")
        if member is None:
            raise UnreadableError(
                f"{self._file.path}: the data of a tensor is missing: there is no "
                + printable(f"{self._root}data/{key}"),
                "The archive is incomplete: download it again.",
            )
        if not member.stored:
            raise compressed(self._file, member)
        if size > member.size:
            raise UnreadableError(
                f"{self._file.path}: storage {key!r:.40} claims {size} bytes; its member has {member.size}",
                "The archive is broken: download it again.",
            )
        if key not in self._known:
            self._known[key] = Storage(self._file, member.size, itemsize, member.start)
        return self._known[key]


def compressed(file: InputFile, member: Member) -> UnreadableError:
    """The error for a member that is not stored as it is."""
    return UnreadableError(
        f"{file.path}: its member {member.name!r:.120} is compressed, which torch.save never does",
        "If someone zipped it again, unpack it and repack it without compression (`zip -0`).",
    )


def _root(file: InputFile, members: Mapping[str, Member]) -> str:
    """The folder within the archive that holds data.pkl, with its slash; refuses other kinds of archive."""
    names = list(members)
    roots = [
        name.removesuffix("data.pkl") for name in names if name.count("/") == 1 and name.endswith("/data.pkl")
    ]
    if len(roots) == 1:
        return roots[0]
    path = file.path
    last = {name.rpartition("/")[2] for name in names}
    if names and all(name.endswith(".npy") for name in names):
        raise UnreadableError(
            f"{path}: this is a numpy archive (.npz), not a PyTorch model",
            "Save it as safetensors: safetensors.numpy.save_file(dict(np.load(...)), 'model.safetensors').",
        )
    if "model.weights.h5" in last or {"config.json", "metadata.json"} <= set(names):
        raise UnreadableError(f"{path}: this is a Keras model (.keras), and nnopt reads PyTorch models")
    if ".data/extern_modules" in names or any("/.data/extern_modules" in name for name in names):
        raise UnreadableError(
            f"{path}: this is a torch.package archive, whose models are code",
            "Load it with torch.package and save its state_dict().",
        )
    if not names:
        raise UnreadableError(f"{path}: this is an empty zip archive")
    if len(roots) > 1:
        raise UnreadableError(
            f"{path}: this zip archive holds {len(roots)} checkpoints: {printable(', '.join(roots[:5]))}"
        )
    inside = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
    raise UnreadableError(
        f"{path}: this is a zip archive, and not one that torch.save wrote; it holds {printable(inside)}",
        "If the model is inside, unpack it and give that file or folder.",
    )


def _provenance(file: InputFile, member: Member | None) -> dict[str, str]:
    """nnopt's record; one that is not understood is as good as none, for nothing depends on it."""
    if member is None or not member.stored or member.size > _RECORD_BYTES:
        return {}
    try:
        return nnopt_strings(parse_object(file.read(member.start, member.size)))
    except ValueError:
        return {}


@contextmanager
def _explained(file: InputFile) -> Iterator[None]:
    """Turn a malformed pickle into a message, and spare the collector the many small objects meanwhile."""
    running = gc.isenabled()
    gc.disable()  # a pickle makes little garbage and many objects: scanning them takes half the time
    try:
        yield
    except MalformedError as error:
        raise UnreadableError(
            f"{file.path}: its pickle cannot be read: {error}",
            "The file is damaged, truncated, or made to do harm. Nothing in it was run.",
        ) from error
    finally:
        if running:
            gc.enable()
