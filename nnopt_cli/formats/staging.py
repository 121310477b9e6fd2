"""Outputs that another library writes: beside their place first, and moved there once they are proven."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nnopt_cli.formats.atomic import _hidden, _lock, _place_folder, _sweep, _sync, _sync_folder
from nnopt_cli.formats.syscalls import rename_new
from nnopt_cli.formats.target import Target, exists, explained


@contextmanager
def staged(target: Target, *, keep: bool = True) -> Iterator[Path]:
    """A hidden folder beside `target`, to write into; it is gone when the block has ended.

    When it ends without an exception, what lies in the folder moves to its place: the file (or folder) of
    the target's own name last, so that the files that it refers to are there before it is.

    Args:
        target: a place that was checked.
        keep: whether anything moves at all.

    Raises NnoptError: something of such a name is there already, or the disk is full.
    """
    _sweep(target.place)
    temporary = _hidden(target.place)
    with explained(target.path, 0):
        temporary.mkdir()
    lock = os.open(temporary, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _lock(lock)
        with explained(target.path, 0):
            yield temporary
        if keep:
            _move(temporary, target)
    finally:
        os.close(lock)
        shutil.rmtree(temporary, ignore_errors=True)


def _move(temporary: Path, target: Target) -> None:
    entries = sorted(temporary.iterdir(), key=lambda entry: entry.name == target.place.name)
    for entry in entries:
        place = target.place.with_name(entry.name)
        if place.exists() and not target.force and not (place.is_dir() and not any(place.iterdir())):
            raise exists(place)
        for file in [entry] if entry.is_file() else sorted(entry.iterdir()):
            with file.open("rb") as opened:
                _sync(opened.fileno())
    for entry in entries:
        place = target.place.with_name(entry.name)
        with explained(place, 0):
            if entry.is_dir():
                _place_folder(entry, Target(place, place, target.force))
            elif target.force:
                entry.replace(place)
            else:
                rename_new(entry, place)
    _sync_folder(target.place.parent)
