"""Tensors in chunks that stay in cache, and each thread's scratch memory for them."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np

from nnopt_cli import Array


@dataclass(frozen=True, slots=True)
class Part:
    """A chunk of one tensor.

    Attributes:
        index: its place in the order of all parts.
        tensor: its tensor's place in the order of tensors.
        start: flat index of its first element.
        count: its elements.
    """

    index: int
    tensor: int
    start: int
    count: int


class Desk(threading.local):
    """Scratch arrays, each thread's own, kept from chunk to chunk: fresh ones would cost page faults."""

    def __init__(self) -> None:
        self._arrays: dict[str, Array] = {}

    def array(self, role: str, count: int, word: str) -> Array:
        """An uninitialised array of `count` words; the next call for the same role gives the same memory."""
        nbytes = count * np.dtype(word).itemsize
        kept = self._arrays.get(role)
        if kept is None or len(kept) < nbytes:
            kept = self._arrays[role] = np.empty(nbytes, np.uint8)
        return kept[:nbytes].view(word)
