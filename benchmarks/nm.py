"""2:4 pruning in memory: mask and apply, against one copy pass."""

from __future__ import annotations

from functools import partial

import numpy as np
import numpy.typing as npt
from _timing import Report, arguments, in_threads, milliseconds, normal
from nnopt_plugins.prune.criteria import Magnitude
from nnopt_plugins.prune.edits import PatternEdit
from nnopt_plugins.prune.granularities import NM
from nnopt_plugins.prune.parts import Desk
from nnopt_plugins.prune.source import Item, Scorer, key_for

from nnopt_cli import CHUNK_BYTES, MemoryWeight
from nnopt_cli.formats.dtypes import dtype_named

Words = npt.NDArray[np.generic]


def prune(words: Words, dtype: str, threads: int) -> None:
    """What the pass does while writing, on weights in memory."""
    weight = MemoryWeight("weight", dtype_named(dtype), words.reshape(-1, 4096))
    item = Item("weight", weight, 0)
    edit = PatternEdit(item, Scorer(Magnitude(), key_for(Magnitude(), [item]), 0), NM(), Desk(), finite=True)
    in_threads(lambda a, b: edit(words[a:b], a), len(words), threads, CHUNK_BYTES // words.itemsize)


def _copy(source: Words, target: Words, start: int, stop: int) -> None:
    target[start:stop] = source[start:stop]


if __name__ == "__main__":
    given = arguments(__doc__, rows=16384)
    report, count = Report(given.check), given.rows * 4096
    weights = normal(count)
    for dtype, bar in (("float32", 5.0), ("bfloat16", 7.0)):
        words = weights if dtype == "float32" else (weights.view("<u4") >> 16).astype("<u2")
        worked, target = words.copy(), words.copy()
        step = CHUNK_BYTES // words.itemsize
        sides = {
            "fresh": partial(np.copyto, worked, words),
            "prune": partial(prune, worked, dtype, given.threads),
            "copy": partial(in_threads, partial(_copy, words, target), count, given.threads, step),
        }
        ms = milliseconds(sides, given.repeat)
        assert np.count_nonzero(worked.reshape(-1, 4), axis=1).max() == 2
        what = f"2:4, {count / 1e6:.0f}M {dtype}: {ms['prune']:.0f} ms, a copy pass {ms['copy']:.1f} ms"
        report.bar(what, ms["prune"] / ms["copy"], bar)
    report.finish()
