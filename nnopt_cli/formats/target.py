"""Where an output may go: refused before any work, with a message, rather than after it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from nnopt_cli.errors import NnoptError

FULL = {errno.ENOSPC, errno.EDQUOT}
_ANOTHER = "Choose another name for the output."


@dataclass(frozen=True)
class Target:
    """A place that was checked and may be written.

    Attributes:
        path: where to, as the user named it.
        place: the same with a symbolic link followed: a link stays, what it points to is replaced.
        force: replace what is there.
    """

    path: Path
    place: Path
    force: bool


def check_target(path: Path, *, folder: bool, force: bool, inputs: Sequence[Path]) -> Target:
    """Refuse at once what could not be written in the end, or would change an input.

    Args:
        path: the output.
        folder: whether it will be a folder.
        force: whether an existing output may be replaced.
        inputs: every file or folder that was read.

    Raises:
        NnoptError: the output exists, is or holds an input, or its folder is missing.
    """
    with explained(path, 0):
        path.exists()  # a name that is too long, a folder that may not be entered
    if path.is_symlink() or path.name in ("", ".."):
        place = Path(os.path.realpath(path))
    else:  # by the system's own steps: `link/..` is above what the link points to
        place = Path(os.path.realpath(path.parent)) / path.name
    if not place.name:
        raise NnoptError(f"{path}: not a name that an output can have", _ANOTHER)
    for source in inputs:
        _guard_input(path, place, folder, source)
    if not place.parent.is_dir():
        raise NnoptError(
            f"{path}: the folder {place.parent} does not exist", "Make it first, or choose another."
        )
    if not os.access(place.parent, os.W_OK | os.X_OK):
        raise NnoptError(f"{path}: nothing may be written to the folder {place.parent}", "Choose another.")
    if place.is_dir():
        if not folder:
            raise NnoptError(f"{path}: is a folder, and the output is a file", _ANOTHER)
        if any(place.iterdir()):  # an empty folder is simply filled
            if not force:
                raise exists(path)
            _guard_folder(path, place)
    elif place.exists():
        if folder:
            raise NnoptError(f"{path}: is a file, and the output is a folder", _ANOTHER)
        if not place.is_file():
            raise NnoptError(f"{path}: is not a regular file", _ANOTHER)
        if not force:
            raise exists(path)
    return Target(path, place, force)


_MODEL_SUFFIXES = {".safetensors", ".bin", ".json", ".txt", ".model", ".jinja", ".tiktoken"}
_MODEL_NAMES = (
    "README",
    "LICENSE",
    ".gitattributes",
    "modeling_",
    "configuration_",
    "tokenization_",
    "processing_",
)


def check_space(target: Target, size: int) -> None:
    """Refuse early what cannot fit. Raises NnoptError with the bytes needed and free."""
    found = os.statvfs(target.place.parent)
    if found.f_blocks and size > _free(found):  # some network and virtual file systems count no blocks
        raise _full(target.path, size, _free(found))


@contextmanager
def explained(path: Path, size: int) -> Iterator[None]:
    """Turn the system's errors into messages about `path`, which takes `size` bytes."""
    try:
        yield
    except FileExistsError as error:
        raise exists(path) from error
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.ENOTDIR):  # appeared in a new folder's place meanwhile
            raise exists(path) from error
        if error.errno in FULL:
            raise _full(path, size, _free(os.statvfs(_existing(path)))) from error
        if error.errno == errno.EFBIG:
            raise NnoptError(
                f"{path}: {f'{human(size)} are' if size else 'this is'} more than one file may hold here",
                "Write to another disk, raise the limit (`ulimit -f`), or, where only weights are wanted, "
                "write a folder of shards (-o without a suffix).",
            ) from error
        raise NnoptError(f"{path}: cannot be written: {error.strerror}") from error


def exists(path: Path) -> NnoptError:
    """The error for an output that is there already."""
    return NnoptError(f"{path}: already exists", "Use --force to replace it, or -o to write somewhere else.")


def human(size: float) -> str:
    """`size` bytes for people, in decimal units as disks are sold."""
    if size < 1000:
        return f"{size:.0f} bytes"
    for unit in ("kB", "MB", "GB"):
        size /= 1000
        if size < 1000:
            return f"{size:.1f} {unit}"
    return f"{size / 1000:.1f} TB"


def _guard_input(path: Path, place: Path, folder: bool, source: Path) -> None:
    real = Path(os.path.realpath(source))
    if place.exists() and real.exists() and place.samefile(real):
        raise NnoptError(
            f"{path}: is the input itself, and an input is never changed",
            "Choose another output, then move it over the input if you want that.",
        )
    if real.is_dir() and _inside(place, real):
        raise NnoptError(
            f"{path}: lies inside the input folder {source}, which is never changed", "Write beside it."
        )
    if folder and _inside(real, place):
        raise NnoptError(f"{path}: holds the input {source}, which is never changed", _ANOTHER)


def _inside(path: Path, folder: Path) -> bool:
    return folder.is_dir() and any(parent.exists() and parent.samefile(folder) for parent in path.parents)


def _guard_folder(path: Path, place: Path) -> None:
    """A slip after --force must not cost somebody's home folder."""
    entries = list(place.iterdir())
    model = any(e.name.endswith((".safetensors", ".bin", ".index.json")) for e in entries)
    foreign = [entry.name for entry in entries if not _belongs(entry)]
    if not model or foreign:
        what = f": {', '.join(sorted(foreign)[:3])}" if model else ""
        raise NnoptError(
            f"{path}: holds something other than a model's files{what}, so --force does not replace it",
            "Choose another output, or move those files away.",
        )


def _belongs(entry: Path) -> bool:
    """Whether a model's folder may be expected to hold this: --force replaces the folder whole."""
    if entry.is_dir() and not entry.is_symlink():
        return False
    return entry.suffix in _MODEL_SUFFIXES or entry.name.startswith(_MODEL_NAMES)


def _existing(path: Path) -> Path:
    """The nearest folder above `path` that is there: a new folder's files are shown under its final name."""
    return next(parent for parent in path.absolute().parents if parent.is_dir())


def _free(found: os.statvfs_result) -> int:
    return found.f_bavail * found.f_frsize


def _full(path: Path, size: int, free: int) -> NnoptError:
    return NnoptError(
        f"{path}: the disk is full: {human(size)} needed, {human(free)} free",
        "Free some space, or write to another disk with -o.",
    )
