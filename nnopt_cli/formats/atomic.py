"""Outputs that appear whole or not at all.

A file is written beside its place under a hidden name, synced, and renamed; a folder likewise. A new
name never replaces something that appeared meanwhile, and `force` swaps old and new folders in one step
where the system can (Linux, macOS). Killed at any moment, the old output or the new one is there.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path

from nnopt_cli.formats.direct import LEAST, PAGE, DirectFile
from nnopt_cli.formats.syscalls import exchange, rename_new, start_writeback
from nnopt_cli.formats.target import FULL, Target, explained

_COPY = 1 << 20  # bytes held at once by a copy
_WRITEBACK = 1 << 25  # bytes between two nudges to start writing to disk: a third of a large write's time
_LARGE = 1 << 26  # bytes of a file that is not kept in the page cache


class OutputFile:
    """A new file open for positioned writes from several threads.

    Attributes:
        path: the file.
        size: its bytes.
    """

    def __init__(self, path: Path, size: int, shown: Path | None = None) -> None:
        """Create `path` with room for `size` bytes; messages speak of `shown`. Raises NnoptError."""
        self.path = path
        self.size = size
        self._shown = shown or path
        self._waiting = 0  # bytes written since the last nudge
        self._direct: DirectFile | None = None
        with explained(self._shown, size):
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            try:
                _lock(self._fd)
                self._reserve()
                self._direct = DirectFile.open(path) if size >= _LARGE else None
            except BaseException:
                self.close(sync=False)
                path.unlink()
                raise

    def _reserve(self) -> None:
        if hasattr(os, "posix_fallocate") and self.size:
            try:
                os.posix_fallocate(self._fd, 0, self.size)
                return
            except OSError as error:
                if error.errno in FULL or error.errno == errno.EFBIG:
                    raise
        os.ftruncate(self._fd, self.size)

    def write_at(self, data: bytes | memoryview, offset: int) -> None:
        """Write all of `data` at byte `offset`. Raises NnoptError when the disk is full."""
        view = memoryview(data)
        with explained(self._shown, self.size):
            if self._direct is not None and len(view) >= LEAST:
                ahead, pages = -offset % PAGE, (len(view) - -offset % PAGE) // PAGE * PAGE
                self._write(view[:ahead], offset)
                done = ahead + self._direct.write_at(view[ahead : ahead + pages], offset + ahead)
                view, offset = view[done:], offset + done
            self._write(view, offset)
            if self._waiting >= _WRITEBACK:
                self._waiting = 0
                start_writeback(self._fd)

    def _write(self, view: memoryview, offset: int) -> None:
        while len(view):
            done = os.pwrite(self._fd, view, offset)
            view, offset = view[done:], offset + done
            self._waiting += done  # threads may lose an update: it only times a hint

    def cut(self, size: int) -> None:
        """Make the file `size` bytes long."""
        with explained(self._shown, size):
            os.ftruncate(self._fd, size)
            self.size = size

    def close(self, *, sync: bool = True) -> None:
        """Close it, after its data has reached the disk if `sync`."""
        if self._fd < 0:
            return
        try:
            if sync:
                with explained(self._shown, self.size):
                    _sync(self._fd)
        finally:
            os.close(self._fd)
            self._fd = -1
            if self._direct is not None:
                self._direct.close()


def copy_file(source: Path, path: Path, shown: Path) -> None:
    """Copy a file to a new one and sync it; messages speak of `shown`. Raises NnoptError."""
    with explained(shown, 0), source.open("rb") as given:
        file, at = OutputFile(path, os.fstat(given.fileno()).st_size, shown), 0
        try:
            while chunk := given.read(_COPY):
                file.write_at(chunk, at)
                at += len(chunk)
            file.close()
        finally:
            file.close(sync=False)


@contextmanager
def new_file(target: Target, size: int) -> Iterator[OutputFile]:
    """An `OutputFile` of `size` bytes that takes its place when the block ends without an exception."""
    _sweep(target.place)
    temporary = _hidden(target.place)
    file = OutputFile(temporary, size, target.path)
    try:
        yield file
        file.close()
        with explained(target.path, size):
            if target.force:
                temporary.replace(target.place)
            else:
                rename_new(temporary, target.place)
    except BaseException:
        file.close(sync=False)
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(target.place.parent)


@contextmanager
def new_folder(target: Target, size: int) -> Iterator[Path]:
    """A folder to fill with `size` bytes that takes its place when the block ends without an exception."""
    _sweep(target.place)
    temporary = _hidden(target.place)
    with explained(target.path, size):
        temporary.mkdir()
    lock = os.open(temporary, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _lock(lock)
        yield temporary
        _sync_folder(temporary)
        with explained(target.path, size):
            _place_folder(temporary, target)
        _sync_folder(target.place.parent)
    finally:
        os.close(lock)
        shutil.rmtree(temporary, ignore_errors=True)  # what failed; after a swap, the old output


def _place_folder(temporary: Path, target: Target) -> None:
    place = target.place
    if not (target.force and place.is_dir() and any(place.iterdir())):
        temporary.rename(place)  # refuses a folder with something in it, takes the place of an empty one
    elif not exchange(temporary, place):
        aside = _hidden(place, "old")
        try:
            place.rename(aside)
            temporary.rename(place)
        except BaseException:
            if not place.exists():
                aside.rename(place)
            raise
        shutil.rmtree(aside, ignore_errors=True)


def _hidden(place: Path, role: str = "tmp") -> Path:
    """A hidden name beside `place` that tells which process made it."""
    return place.with_name(f".{_stem(place)}.nnopt-{os.getpid()}-{secrets.token_hex(4)}.{role}")


def _stem(place: Path) -> str:
    name = place.name
    return name if len(os.fsencode(name)) < 200 else sha256(os.fsencode(name)).hexdigest()


def _sweep(place: Path) -> None:
    """Remove what processes that died while writing `place` left; put an old output back if need be."""
    pattern = re.compile(re.escape(f".{_stem(place)}.nnopt-") + r"(\d+)-[0-9a-f]{8}\.(tmp|old)")
    with suppress(OSError):  # tidying is no reason to fail
        for entry in list(place.parent.iterdir()):
            found = pattern.fullmatch(entry.name)
            if not found or not _abandoned(entry, int(found[1])):
                continue
            if found[2] == "old" and not place.exists():
                entry.rename(place)
            elif entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink()


def _abandoned(entry: Path, pid: int) -> bool:
    """Whether its writer is gone: no such process here, and nobody holds its lock.

    In a container every run may have the same id, so a leftover with our own id is judged by the lock.
    """
    if pid != os.getpid():
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            pass
        except (OSError, OverflowError):
            return False
        else:
            return False
    try:
        fd = os.open(entry, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return _lock(fd)
    finally:
        os.close(fd)


def _lock(fd: int) -> bool:
    """Hold the file for as long as `fd` is open. False where another does, or where locks do not exist."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _sync(fd: int) -> None:
    if hasattr(fcntl, "F_FULLFSYNC"):
        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)  # macOS: fsync alone stops at the drive's cache
    else:
        os.fsync(fd)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems that cannot sync a folder
            raise
    finally:
        os.close(fd)
