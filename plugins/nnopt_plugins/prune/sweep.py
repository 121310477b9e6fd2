"""One pass over many tensors in chunks that stay in cache, on a few threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
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


def sweep(parts: Sequence[Part], work: Callable[[Part], None], threads: int) -> None:
    """Call `work` on every part, from up to `threads` threads, each taking the next part there is.

    An exception in one thread, or an interrupt, stops the others at their next part and is raised here.
    """
    useful = min(threads, len(parts))
    if useful <= 1:
        for part in parts:
            work(part)
        return
    rest: Iterator[Part] = iter(parts)
    lock = threading.Lock()
    stop = threading.Event()

    def loop() -> None:
        while not stop.is_set():
            with lock:
                part = next(rest, None)
            if part is None:
                return
            try:
                work(part)
            except BaseException:
                stop.set()
                raise

    with ThreadPoolExecutor(useful, thread_name_prefix="nnopt-prune") as pool:
        futures = [pool.submit(loop) for _ in range(useful)]
        try:
            for future in futures:
                future.result()
        except BaseException:
            stop.set()  # an interrupt arrives in this thread only
            raise
