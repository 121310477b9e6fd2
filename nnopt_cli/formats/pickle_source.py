"""A stretch of a file as a stream of bytes, for pickles: exact positions, no trust in lengths, and limits."""

from __future__ import annotations

from dataclasses import dataclass

from nnopt_cli.formats.weight import InputFile

_BLOCK = 1 << 18
_LINE = 1 << 16  # bytes in one line of a text opcode


class MalformedError(Exception):
    """The bytes are not what they should be; the message completes "not a valid pickle: …"."""


@dataclass
class Limits:
    """What all the pickles of one checkpoint may use up together, in time and in memory."""

    steps: int = 4_000_000  # opcodes; what makes an object, or walks one, counts several
    held: int = 128 << 20  # bytes of text and bytes objects

    def spend(self, steps: int) -> None:
        """Count work beyond that of an opcode. Raises MalformedError where it was too much."""
        self.steps -= steps
        if self.steps < 0:
            raise MalformedError("it takes more steps than any real checkpoint")

    def hold(self, size: int) -> int:
        """Count bytes that are kept; returns them. Raises MalformedError where it was too much."""
        self.held -= size
        if self.held < 0:
            raise MalformedError("it holds more text and bytes than any real checkpoint")
        return size


class Source:
    """Bytes `start` to `end` of a file, read block by block.

    Attributes:
        file: the file.
        end: where the stretch ends; the file's end, at most.
    """

    def __init__(self, file: InputFile, start: int, end: int) -> None:
        self.file = file
        self.end = end
        self._base = start  # position in the file of the buffer's first byte
        self._buffer = b""
        self._at = 0

    @property
    def position(self) -> int:
        """Position in the file of the next byte."""
        return self._base + self._at

    @property
    def left(self) -> int:
        """Bytes up to the end."""
        return self.end - self.position

    def byte(self) -> int:
        """The next byte."""
        try:
            value = self._buffer[self._at]
        except IndexError:
            self._fill(1)
            value = self._buffer[self._at]
        self._at += 1
        return value

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        stop = self._at + count
        if stop > len(self._buffer):
            self._fill(count)
            stop = self._at + count
        data = self._buffer[self._at : stop]
        self._at = stop
        return data

    def number(self, count: int) -> int:
        """The next `count` bytes as an unsigned little-endian integer."""
        return int.from_bytes(self.take(count), "little")

    def skip(self, count: int) -> int:
        """Step over `count` bytes without reading them; returns where they begin."""
        start = self.position
        if count > self.left:
            raise MalformedError(f"it ends at byte {self.end}, before it is complete")
        self._base, self._buffer, self._at = start + count, b"", 0
        return start

    def line(self, most: int = _LINE) -> bytes:
        """The bytes up to the next line end, which is stepped over; `most` at most."""
        found = self._buffer.find(b"\n", self._at)
        size = 0
        while found < 0:
            if size >= min(most, self.left):
                raise MalformedError(f"a line that begins at byte {self.position} has no end")
            size = min(max(4 * size, _LINE), self.left)
            self._fill(size)
            found = self._buffer.find(b"\n", self._at)
        data = self._buffer[self._at : found]
        self._at = found + 1
        return data

    def _fill(self, count: int) -> None:
        """Have at least `count` bytes in the buffer."""
        if count > self.left:
            raise MalformedError(f"it ends at byte {self.end}, before it is complete")
        start = self.position
        self._buffer = self.file.read(start, min(max(count, _BLOCK), self.end - start))
        self._base, self._at = start, 0
        if len(self._buffer) < count:
            raise MalformedError("the file became shorter while it was read")
