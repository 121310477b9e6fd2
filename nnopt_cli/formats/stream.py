"""The engine of every writer: one streaming pass that edits, counts, hashes and writes all tensors.

Threads or processes take whole tensors from a queue, the largest first; the chunks of one tensor go in order,
so its blake3 and crc32 are sequential and every figure is the same for any number of threads. Memory
is two chunk buffers and one of flags per thread, however large the model is.
"""

from __future__ import annotations

import threading
import zlib
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from blake3 import blake3

from nnopt_cli.formats.layout import Sink
from nnopt_cli.formats.syscalls import keep_freed_memory
from nnopt_cli.formats.tally import Tally
from nnopt_cli.formats.threads import in_threads
from nnopt_cli.formats.weight import CHUNK_BYTES, Array, Weight
from nnopt_cli.formats.zeros import count_zeros

SAMPLE_BYTES = 1 << 20  # of the whole model, to estimate its compressed size: 60 ms of deflate
FORKED_BYTES = 1 << 26  # from which processes are worth their start
SLICE_BYTES = 1 << 13  # long enough that deflate's own tables (100 bytes) bias the estimate little


@dataclass(frozen=True, slots=True)
class Placed:
    """A tensor and where its elements go.

    Attributes:
        weight: what to write.
        sink: the file.
        offset: byte of the file where the first element goes.
        crc: whether the file needs the crc32 of the tensor's bytes.
    """

    weight: Weight
    sink: Sink
    offset: int = 0
    crc: bool = False


@dataclass(frozen=True, slots=True)
class Streamed:
    """What streaming one tensor found: its figures, and the crc32 of its output (0 if not asked for)."""

    tally: Tally
    crc32: int


def stream(
    placed: Sequence[Placed],
    *,
    threads: int,
    tick: Callable[[int], None] = lambda done: None,
    helped: Callable[[int], None] = lambda peak_bytes: None,
    chunk_bytes: int = CHUNK_BYTES,
) -> list[Streamed]:
    """Read, edit, count and write every tensor once; returns what was found, in the order given.

    `tick` is told the bytes done as they are done, from several threads. Large models that are all but `pure`
    go to processes instead, and `helped` is told their memory. An exception in one of them stops
    the others and is raised here, as is KeyboardInterrupt.
    """
    keep_freed_memory()
    order, job = _order(placed), _Job(placed, chunk_bytes)
    useful = max(1, min(threads, len(placed), -(-job.total // chunk_bytes)))
    rest = [index for index in order if not placed[index].weight.pure]
    found: dict[int, Streamed] = {}

    def work(index: int) -> None:
        done = job(index, tick)
        if done is not None:
            found[index] = done

    if useful > 1 and _forkable(job.total, sum(placed[index].weight.nbytes for index in rest)):
        from nnopt_cli.formats.forks import in_forks

        pure = [index for index in order if placed[index].weight.pure]
        done, peak = in_forks(
            useful + 1, pure, job, tick=tick, meanwhile=lambda: in_threads(1, rest, work, job.stop)
        )
        found |= done
        helped(peak)
    else:
        in_threads(useful, order, work, job.stop)
    return [found[index] for index in range(len(placed))]


def _forkable(total: int, rest: int) -> bool:
    """Whether forked processes are worth it for tensors of `total` bytes, of which they cannot do `rest`."""
    if total < FORKED_BYTES or rest > total // 16:  # the rest is one thread's work
        return False
    from nnopt_cli.formats.forks import can_fork

    return can_fork()


class _Job:
    """Streams the tensor of a number, with buffers of the thread that asks for it.

    Attributes:
        total: bytes of all tensors.
        stop: set where all are to stop at their next chunk.
    """

    def __init__(self, placed: Sequence[Placed], chunk_bytes: int) -> None:
        self._placed = placed
        self._chunk_bytes = chunk_bytes
        self._own = threading.local()
        self.total = sum(item.weight.nbytes for item in placed)
        self.stop = threading.Event()

    def __call__(self, index: int, tick: Callable[[int], None]) -> Streamed | None:
        """None where it was told to stop."""
        if not hasattr(self._own, "desk"):
            self._own.desk = _Desk(self._chunk_bytes)
        item = self._placed[index]
        return _stream_one(item, self._own.desk, _sample(item.weight, self.total), self.stop, tick)


def _order(placed: Sequence[Placed]) -> list[int]:
    """The largest first; among equals from one file after the other, as writes to one file wait in line."""
    turn: dict[int, int] = {}
    keys = []
    for item in placed:
        file = id(item.sink)
        turn[file] = turn.get(file, -1) + 1
        keys.append((-item.weight.nbytes, turn[file]))
    return sorted(range(len(placed)), key=keys.__getitem__)


class _Desk:
    """One thread's buffers, grown for a tensor whose edit needs larger chunks and then given back."""

    def __init__(self, chunk_bytes: int) -> None:
        self.chunk_bytes = chunk_bytes
        self._fit(chunk_bytes, 1)

    def _fit(self, nbytes: int, itemsize: int) -> None:
        self._size = nbytes
        self._out = np.empty(nbytes, np.uint8)
        self._kept = np.empty(nbytes, np.uint8)
        self.flags = np.empty(nbytes // itemsize, np.bool_)

    def prepare(self, weight: Weight) -> None:
        """Make room for the chunks of `weight`."""
        longest = next(weight.spans(1, self.chunk_bytes), (0, 0))[1] * weight.dtype.itemsize
        if longest > self._size:
            self._fit(longest, weight.dtype.itemsize)
        elif self._size > self.chunk_bytes >= longest:
            self._fit(self.chunk_bytes, 1)

    def out(self, weight: Weight, count: int) -> Array:
        return self._out[: count * weight.dtype.itemsize].view(weight.dtype.word)

    def kept(self, weight: Weight, count: int) -> Array:
        return self._kept[: count * weight.dtype.itemsize].view(weight.dtype.word)


class _Side:
    """The figures of one tensor on one side, input or output; sees its words in order."""

    def __init__(self, weight: Weight, sample: list[tuple[int, int]], desk: _Desk) -> None:
        self._dtype = weight.dtype
        self._desk = desk
        self._wanted = deque(sample)
        self._taken = bytearray()
        self.at = 0  # flat index of the next element
        self.zeros = 0

    def see(self, words: Array) -> None:
        self.zeros += count_zeros(words, self._dtype, self._desk.flags)
        end = self.at + len(words)
        while self._wanted and self._wanted[0][0] < end:
            start, count = self._wanted[0]
            self._taken += _bytes(words[max(start, self.at) - self.at : start + count - self.at])
            if start + count > end:
                break
            self._wanted.popleft()
        self.at = end

    @property
    def sampled(self) -> int:
        return len(self._taken)

    def packed(self) -> int:
        """Bytes that the sample takes after deflate, at the level that zip and gzip use by default."""
        deflate = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
        return len(deflate.compress(self._taken)) + len(deflate.flush()) if self._taken else 0


def _stream_one(
    item: Placed,
    desk: _Desk,
    sample: list[tuple[int, int]],
    stop: threading.Event,
    tick: Callable[[int], None],
) -> Streamed | None:
    """Stream one tensor; None if told to stop."""
    weight = item.weight
    edited = weight.origin is not weight
    desk.prepare(weight)
    before, after = _Side(weight, sample, desk), _Side(weight, sample, desk)
    digest = blake3()
    changed, crc, base = False, 0, 0

    def tap(words: Array) -> None:
        digest.update(_bytes(words))
        if edited and not changed:
            kept[before.at - base : before.at - base + len(words)] = words
        before.see(words)

    for base, count in weight.spans(1, desk.chunk_bytes):
        if stop.is_set():
            return None
        words, kept = desk.out(weight, count), desk.kept(weight, count)
        weight.read_into(words, base, tap)
        raw = _bytes(words)
        if edited:
            after.see(words)
            changed = changed or not np.array_equal(_bits(words), _bits(kept))
        if item.crc:
            crc = zlib.crc32(raw, crc)
        item.sink.write_at(raw, item.offset + base * weight.dtype.itemsize)
        tick(len(raw))
    packed = before.packed()
    tally = Tally(
        elements=weight.numel,
        zeros_before=before.zeros,
        zeros_after=after.zeros if edited else before.zeros,
        changed=changed,
        blake3=digest.hexdigest(),
        sampled=before.sampled,
        packed_before=packed,
        packed_after=after.packed() if changed else packed,
        parts=tuple(each.hexdigest() for each in weight.digests),
    )
    return Streamed(tally, crc)


def _sample(weight: Weight, total: int) -> list[tuple[int, int]]:
    """Spans of elements, spread evenly over the tensor: its share of SAMPLE_BYTES, one slice at least."""
    size = weight.dtype.itemsize
    length = SLICE_BYTES // size
    slices = max(1, SAMPLE_BYTES * weight.nbytes // (SLICE_BYTES * max(1, total)))
    if total <= SAMPLE_BYTES or slices * length >= weight.numel:
        return [(0, weight.numel)]
    room = weight.numel - length
    if slices == 1:
        return [(room // 2, length)]
    return [(room * i // (slices - 1), length) for i in range(slices)]


def _bytes(words: Array) -> memoryview:
    return words.view(np.uint8).data


def _bits(words: Array) -> Array:
    """As integers, so that NaN equals itself and -0 differs from 0."""
    return words.view(np.uint64 if words.nbytes % 8 == 0 else np.uint8)
