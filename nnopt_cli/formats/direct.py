"""Writing past the page cache: a large file reaches the disk without a copy in the system's memory.

Source: open(2), O_DIRECT. Memory, offsets and lengths must be whole pages, so what is written goes through a
buffer that is; most of a buffered write's processor time is the page cache's, and the rest of the
machine keeps its own pages in it.
"""

from __future__ import annotations

import errno
import mmap
import os
from collections import deque
from pathlib import Path

PAGE = 1 << 12  # of every file system that takes such writes; one that wants more refuses
LEAST = 1 << 19  # bytes of a write from which it is worth it
_ROOM = 1 << 21  # bytes that are copied and written at once


class DirectFile:
    """A file that exists already, open a second time, for writes of whole pages from several threads."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._spare: deque[mmap.mmap] = deque()  # buffers that no thread is using
        self._refused = False

    @classmethod
    def open(cls, path: Path) -> DirectFile | None:
        """`path` for writing, or None where its file system or the system does not take such writes."""
        flag = getattr(os, "O_DIRECT", 0)
        if not flag:
            return None
        try:
            return cls(os.open(path, os.O_WRONLY | os.O_CLOEXEC | flag))
        except OSError:
            return None

    def write_at(self, data: memoryview, offset: int) -> int:
        """Write `data`, whole pages for a place that begins with one; returns the bytes that were written.

        They are fewer where the file system does not go on like this: write the rest another way.
        Raises OSError when the disk is full.
        """
        done = 0
        buffer = self._spare.pop() if self._spare else mmap.mmap(-1, _ROOM)
        while done < len(data) and not self._refused:
            count = min(_ROOM, len(data) - done)
            buffer[:count] = data[done : done + count]
            try:
                with memoryview(buffer) as pages:
                    got = os.pwrite(self._fd, pages[:count], offset + done)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                got = 0
            done += got // PAGE * PAGE
            self._refused = self._refused or got < count
        self._spare.append(buffer)
        return done

    def close(self) -> None:
        """Close it."""
        os.close(self._fd)
