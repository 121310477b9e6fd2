"""The streaming engine: its figures against independent ones, whatever the threads and chunks."""

from __future__ import annotations

import threading
import zlib

import numpy as np
import pytest
import torch
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st
from write_helpers import Keep, weight

from nnopt_cli.errors import UnreadableError
from nnopt_cli.formats.dtypes import DTYPES
from nnopt_cli.formats.layout import Nowhere
from nnopt_cli.formats.stream import SAMPLE_BYTES, Placed, stream
from nnopt_cli.formats.weight import CHUNK_BYTES, FileWeight, InputFile, MemoryWeight, Weight
from nnopt_cli.formats.zeros import count_zeros


class Recorder:
    """A sink that remembers what was written where."""

    def __init__(self, size: int) -> None:
        self.content = bytearray(size)
        self.lock = threading.Lock()

    def write_at(self, data: bytes | memoryview, offset: int) -> None:
        with self.lock:
            self.content[offset : offset + len(data)] = data

    def cut(self, size: int) -> None:
        del self.content[size:]


def zeros_by_torch(w: Weight) -> int:
    tensor = w.torch()
    if w.dtype.name == "float8_e8m0fnu":
        return 0  # 2^(x-127): no pattern is zero
    if w.dtype.kind == "bool":
        return int((w.words() == 0).sum())
    if w.dtype.name == "complex32":
        tensor = torch.view_as_real(tensor).float()
        return int((tensor == 0).all(dim=-1).sum())
    if w.dtype.kind == "float8":
        tensor = tensor.float()
    if w.dtype.kind == "int":
        return int((w.words() == 0).sum())
    return int((tensor == 0).sum())


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
@pytest.mark.parametrize("dtype", DTYPES)
def test_zeros_are_what_torch_calls_zero(dtype):
    kind = DTYPES[dtype]
    if kind.itemsize <= 2:  # every pattern there is
        patterns = np.arange(2 ** (8 * kind.itemsize), dtype=f"<u{kind.itemsize}").view(kind.word)
        w = MemoryWeight("w", kind, patterns)
    else:
        raw = weight("w", dtype, (4000,)).words().view(np.uint8).reshape(4000, -1)
        raw[::7] = 0
        half = kind.itemsize // (2 if kind.kind == "complex" else 1)
        raw[::14, half - 1] = 0x80  # a minus zero, or the least integer
        raw[::28, -1] = 0x80
        w = MemoryWeight("w", kind, raw.reshape(-1).view(kind.word))
    counted = count_zeros(w.words(), kind, np.empty(w.numel, np.bool_))
    assert counted == zeros_by_torch(w)
    assert counted > 0 or dtype == "float8_e8m0fnu"


def many(edit: bool) -> list[Weight]:
    shapes = [(1000, 77), (3,), (), (0, 4), (513, 5), (64, 64), (9, 9, 9)]
    weights: list[Weight] = []
    for index, dtype in enumerate(DTYPES):
        w = weight(f"w{index}", dtype, shapes[index % len(shapes)], seed=index)
        weights.append(w.edited(Keep(3)) if edit and index % 3 else w)
    return weights


@pytest.mark.parametrize("edit", [False, True])
def test_figures_and_bytes_are_the_same_for_any_threads_and_chunks(edit):
    weights = many(edit)
    seen = []
    for threads, chunk in [(1, CHUNK_BYTES), (2, 1 << 17), (2, 1 << 12), (5, 1000), (3, 64)]:
        sink, offset, placed = Recorder(sum(w.nbytes for w in weights)), 0, []
        for w in weights:
            placed.append(Placed(w, sink, offset, crc=True))
            offset += w.nbytes
        ticks: list[int] = []
        found = stream(placed, threads=threads, tick=ticks.append, chunk_bytes=chunk)
        assert sum(ticks) == offset
        seen.append((found, bytes(sink.content)))
    assert all(other == seen[0] for other in seen[1:])
    found, content = seen[0]
    for w, item in zip(weights, found, strict=True):
        before, after = w.origin.words().tobytes(), w.words().tobytes()
        assert item.tally.blake3 == blake3(before).hexdigest()
        assert item.crc32 == zlib.crc32(after)
        assert item.tally.changed == (before != after)
        flags = np.empty(w.numel, np.bool_)
        assert item.tally.zeros_before == count_zeros(w.origin.words().reshape(-1), w.dtype, flags)
        assert item.tally.zeros_after == count_zeros(w.words().reshape(-1), w.dtype, flags)
        assert item.tally.elements == w.numel
        assert (item.tally.sampled > 0) == (w.numel > 0)
        assert item.tally.packed_after <= item.tally.packed_before
    assert content == b"".join(w.words().tobytes() for w in weights)


def test_an_edit_that_changes_a_sign_of_zero_or_a_nan_is_seen():
    class Flip:
        unit = 1

        def __call__(self, words, start):
            words.view(np.uint32)[words == 0] ^= 0x80000000

    class Nothing:
        unit = 1

        def __call__(self, words, start):
            words[:] = words

    w = MemoryWeight.of("w", np.array([0.0, 1.0, np.nan], np.float32))
    flipped, same = (stream([Placed(w.edited(e), Nowhere(), 0)], threads=1)[0] for e in (Flip(), Nothing()))
    assert flipped.tally.changed
    assert flipped.tally.zeros_after == flipped.tally.zeros_before == 1
    assert not same.tally.changed


def test_a_mapped_weight_is_computed_whole_and_the_next_tensor_is_not():
    w = weight("w", "float32", (700, 333))
    halved = w.mapped(lambda name, tensor: torch.flip(tensor, (0,)))
    sink = Recorder(2 * w.nbytes)
    found = stream([Placed(halved, sink, 0), Placed(w, sink, w.nbytes)], threads=1, chunk_bytes=1 << 14)
    assert bytes(sink.content) == w.words()[::-1].tobytes() + w.words().tobytes()
    assert found[0].tally.changed
    assert found[0].tally.blake3 == found[1].tally.blake3 == blake3(w.words().tobytes()).hexdigest()


@given(numel=st.integers(1, 5_000_000), others=st.integers(0, 10**9))
def test_the_sample_lies_within_the_tensor_in_order_and_near_its_share(numel, others):
    from nnopt_cli.formats.stream import SLICE_BYTES, _sample

    class Shape(MemoryWeight):
        def __init__(self) -> None:
            Weight.__init__(self, "w", DTYPES["float32"], (numel,))

    w = Shape()
    total = w.nbytes + others
    spans = _sample(w, total)
    ends = [start + count for start, count in spans]
    assert spans[0][0] >= 0
    assert ends[-1] <= numel
    assert all(end <= start for end, (start, _) in zip(ends, spans[1:], strict=False))
    sampled = 4 * sum(count for _, count in spans)
    assert sampled <= max(SAMPLE_BYTES * w.nbytes // total, SLICE_BYTES) or total <= SAMPLE_BYTES
    assert sampled == w.nbytes or sampled >= SLICE_BYTES


def test_the_sample_estimates_the_compressed_size():
    dense = np.random.default_rng(0).standard_normal(4 << 20).astype(np.float32)
    tally = stream([Placed(MemoryWeight.of("w", dense).edited(Keep(2)), Nowhere(), 0)], threads=1)[0].tally
    dense[np.arange(len(dense)) % 2 != 0] = 0
    true = len(zlib.compress(dense[: 1 << 20].tobytes(), 6)) / (4 << 20)
    assert tally.packed_after / tally.sampled == pytest.approx(true, rel=0.03)
    assert tally.packed_before > tally.packed_after


class Broken(MemoryWeight):
    """A weight that raises after some chunks."""

    def __init__(self, error: BaseException) -> None:
        super().__init__("broken", DTYPES["float32"], np.zeros(100_000, np.float32))
        self.error = error

    def read_into(self, out, start, tap=None):
        if start > 20_000:
            raise self.error
        super().read_into(out, start, tap)


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("error", [UnreadableError("cut"), KeyboardInterrupt(), ZeroDivisionError()])
def test_an_error_in_one_thread_stops_the_others_and_comes_out(threads, error):
    seen = []
    long = MemoryWeight("long", DTYPES["float32"], np.zeros(90_000, np.float32))
    placed = [Placed(Broken(error), Nowhere(), 0)] + [Placed(long, Nowhere(), 0)] * 200
    before = threading.active_count()  # other tests' libraries may keep threads of their own
    with pytest.raises(type(error)):
        stream(placed, threads=threads, tick=seen.append, chunk_bytes=1000)
    assert sum(seen) < 100 * long.nbytes
    assert threading.active_count() == before


def test_a_file_that_ends_early_is_unreadable(tmp_path):
    path = tmp_path / "short"
    path.write_bytes(bytes(1000))
    w = FileWeight("w", DTYPES["float32"], (300,), InputFile(path), 0)
    with pytest.raises(UnreadableError, match="ends at byte 1000"):
        stream([Placed(w, Nowhere(), 0)], threads=2)


def test_nothing_to_stream():
    assert stream([], threads=4) == []
