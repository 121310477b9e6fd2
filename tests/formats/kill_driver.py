"""Run by test_atomic_kill.py: kills writers of OUTPUT at every step, or at random moments, and looks.

usage: kill_driver.py OUTPUT steps|moments|fallback|naive COUNT
Prints one JSON object. Forks, so it stays apart from pytest and from torch.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from nnopt_cli.errors import NnoptError
from nnopt_cli.formats import atomic
from nnopt_cli.formats import write as write_module
from nnopt_cli.formats.checkpoint import Checkpoint, Container
from nnopt_cli.formats.weight import MemoryWeight
from nnopt_cli.run import Run

CALLS = ("open", "pwrite", "fsync", "ftruncate", "posix_fallocate", "close")
CALLS += ("rename", "replace", "unlink", "rmdir", "mkdir", "link")
OUT, MODE, COUNT = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])


def produce(value: int, threads: int = 1) -> None:
    """Write a model whose every element is `value` over whatever is there."""
    shards = {f"w{i}": f"model-0000{i + 1}-of-00002.safetensors" for i in range(2)}
    folder = OUT.suffix == ""
    weights = {name: MemoryWeight.of(name, np.full(100_000, value, np.float32)) for name in shards}
    container = Container(Path("input"), "safetensors", (), shards=shards if folder else None)
    record = {"nnopt.x": str(value)}
    write_module.write(
        Checkpoint(weights, container), OUT, record=lambda t: record, run=Run(threads=threads), force=True
    )


@contextmanager
def naive_file(target, size):
    """What a careless writer does: over the old output, in place. Shows that this test can fail."""
    target.place.unlink()
    file = atomic.OutputFile(target.place, size)
    yield file
    file.close()


def contents() -> dict[str, bytes]:
    if OUT.is_dir():
        return {path.name: path.read_bytes() for path in OUT.iterdir()}
    return {"": OUT.read_bytes()} if OUT.exists() else {}


def child(body) -> int:
    """Run `body` in a fork; the fork's process id."""
    pid = os.fork()
    if pid == 0:
        try:
            body()
            os._exit(0)
        except NnoptError as error:
            print(error, file=sys.stderr)
            os._exit(1)
    return pid


def die_at(step: int):
    """Write 2, and be killed in place of the system call number `step`."""

    def body() -> None:
        made = 0

        def counted(function):
            def call(*args, **options):
                nonlocal made
                made += 1
                if made == step:
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*args, **options)

            return call

        for name in CALLS:
            setattr(os, name, counted(getattr(os, name)))
        atomic.exchange = counted((lambda a, b: False) if MODE == "fallback" else atomic.exchange)
        atomic.rename_new = counted(atomic.rename_new)
        if MODE == "naive":
            write_module.new_file = naive_file
        produce(2)

    return body


def main() -> dict:
    random.seed(0)
    versions = []
    start = time.monotonic()
    for value in (2, 1):
        produce(value)
        versions.append(contents())
    one = (time.monotonic() - start) / 2  # seconds for a write, on this machine now
    new, old = versions
    seen = {"old": 0, "new": 0, "aside": 0, "broken": 0, "finished": 0}
    for step in range(1, COUNT + 1):
        if MODE == "moments":
            first = int(contents() == old)  # the other version than the one there now
            pid = child(lambda first=first: [produce((n + first) % 2 + 1, threads=2) for n in range(1000)])
            time.sleep(random.uniform(0, 3 * one))
            os.kill(pid, signal.SIGKILL)
        else:
            produce(1)
            pid = child(die_at(step))
        _, status = os.waitpid(pid, 0)
        found = contents()
        if not found:
            atomic._sweep(OUT)  # as the next write does
            seen["aside"] += 1
            found = contents()
        seen["old" if found == old else "new" if found == new else "broken"] += 1
        if status == 0:
            seen["finished"] += 1
            break
    produce(1)
    seen["leftovers"] = [p.name for p in OUT.parent.iterdir() if p != OUT]
    seen["last"] = contents() == old
    return seen


print(json.dumps(main()))
