"""Work on many things in a few threads, each taking the next thing there is."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, SimpleQueue
from typing import TypeVar

T = TypeVar("T")


def in_threads(
    count: int, items: Sequence[T], work: Callable[[T], object], stop: threading.Event | None = None
) -> None:
    """Call `work` on every item, from up to `count` threads; in this one where that is enough.

    An exception in one thread, or an interrupt, sets `stop` and is raised here; the others stop at their next
    item, or sooner where `work` looks at `stop` itself.
    """
    ended = stop or threading.Event()
    queue: SimpleQueue[T] = SimpleQueue()
    for item in items:
        queue.put(item)

    def loop() -> None:
        try:
            while not ended.is_set():
                try:
                    item = queue.get_nowait()
                except Empty:
                    return
                work(item)
        except BaseException:
            ended.set()
            raise

    useful = min(count, len(items))
    if useful <= 1:
        loop()
        return
    with ThreadPoolExecutor(useful, thread_name_prefix="nnopt") as pool:
        futures = [pool.submit(loop) for _ in range(useful)]
        try:
            for future in futures:
                future.result()
        except BaseException:
            ended.set()  # an interrupt arrives in this thread only
            raise
