"""What a writer plans before any data moves: one file, where each tensor goes, and how it is completed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from nnopt_cli.formats.weight import Weight


class Sink(Protocol):
    """A file being written."""

    def write_at(self, data: bytes | memoryview, offset: int) -> None:
        """Write all of `data` at byte `offset`."""

    def cut(self, size: int) -> None:
        """Make the file `size` bytes long."""


class Nowhere:
    """A sink that keeps nothing, for counting only."""

    def write_at(self, data: bytes | memoryview, offset: int) -> None:
        """Do nothing."""

    def cut(self, size: int) -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A tensor's place in a file.

    Attributes:
        weight: the tensor, once however many names it has.
        offset: byte of the file where its first element goes.
    """

    weight: Weight
    offset: int


class Layout(ABC):
    """The plan of one file.

    Attributes:
        size: bytes that the file takes, at most: the record is known only after streaming.
        slots: every tensor in it.
        crc: whether `finish` needs the crc32 of each tensor's bytes.
    """

    size: int
    slots: Sequence[Slot]
    crc: bool = False

    @abstractmethod
    def finish(self, sink: Sink, crcs: Sequence[int], strings: Mapping[str, str]) -> int:
        """Write everything but the tensors' data; returns the file's final size in bytes.

        Args:
            sink: the file, its data already written.
            crcs: crc32 of each slot's bytes, in order; zeros unless `crc`.
            strings: nnopt's own metadata.
        """


def unique(weights: Mapping[str, Weight]) -> dict[str, Weight]:
    """Tied weights under their first name only."""
    seen: dict[int, str] = {}
    return {name: weight for name, weight in weights.items() if seen.setdefault(id(weight), name) == name}
