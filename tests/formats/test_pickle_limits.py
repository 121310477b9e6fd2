"""Pickle bombs: what a pickle may cost is counted in steps and bytes, so no clock is needed to test it."""

from __future__ import annotations

import tracemalloc

import pytest

from nnopt_cli.formats.pickle_ops import run
from nnopt_cli.formats.pickle_source import Limits, MalformedError, Source
from nnopt_cli.formats.rebuild import Rebuilder
from nnopt_cli.formats.weight import InputFile

STEPS, HELD = 100_000, 1 << 20
MANY = STEPS  # repetitions: each of them takes a step at the least


def text(value: str) -> bytes:
    return b"X" + len(value).to_bytes(4, "little") + value.encode()


def shared(opening: bytes, each: bytes) -> bytes:
    """A value put into the memo (`opening`), then used `each` time; few bytes, and few opcodes."""
    return b"\x80\x02](" + opening + each * 2000 + b"e."


THOUSAND = b"(" + b"".join(text(f"{i:04d}") for i in range(1000))
PAIRS = b"".join(text(f"{i:04d}") + b"N\x86" for i in range(1000))
KEYS = b"".join(b"K%cM%c%c\x86N" % (i % 256, i % 256, i // 256) for i in range(2000))
TABLE = b"}(" + b"".join(text(f"{i:04d}") + b"N" for i in range(1000)) + b"u"
OBJECTS = {  # many small ones: what each takes in memory has to be paid for
    "lists": b"\x80\x02](" + b"]" * MANY + b"e.",
    "appended lists": b"\x80\x02]" + b"]a" * MANY + b".",
    "nested lists": b"\x80\x02" + b"]" * MANY + b".",
    "dicts": b"\x80\x02](" + b"}" * MANY + b"e.",
    "sets": b"\x80\x04](" + b"\x8f" * MANY + b"e.",
    "frozen sets": b"\x80\x04](" + b"(\x91" * MANY + b"e.",
    "tuples": b"\x80\x02](" + b"N\x85" * MANY + b"e.",
    "marks": b"\x80\x02" + b"(" * MANY + b".",
    "kept values": b"\x80\x04" + b"]\x94" * MANY + b".",
    "texts": b"\x80\x04](" + b"\x8c\x00" * MANY + b"e.",
    "ordered dicts": b"\x80\x02](ccollections\nOrderedDict\nq\x00" + b"h\x00)R" * MANY + b"e.",
    "objects": b"\x80\x02](cx\ny\nq\x00" + b"h\x00)\x81" * MANY + b"e.",
    "sizes": b"\x80\x02](ctorch\nSize\nq\x00" + b"h\x00K\x01\x85\x85R" * MANY + b"e.",
}
COPIES = {  # one large value that is walked or copied again and again
    "states that are merged": b"\x80\x02cx\ny\n)R" + TABLE + b"q\x01b" + b"h\x01b" * 2000 + b".",
    "ordered dicts": shared(b"ccollections\nOrderedDict\nq\x00(" + PAIRS + b"lq\x01", b"h\x00h\x01\x85R"),
    "default dicts": shared(b"ccollections\ndefaultdict\nq\x00" + TABLE + b"q\x01", b"h\x00h\x01\x85R"),
    "sets": shared(b"c__builtin__\nset\nq\x00" + THOUSAND + b"lq\x01", b"h\x00h\x01\x85R"),
    "sizes": shared(b"ctorch\nSize\nq\x00(" + b"K\x01" * 1000 + b"lq\x01", b"h\x00h\x01\x85R"),
    "bytes": shared(b"c_codecs\nencode\nq\x00" + text("a" * 4096) + b"q\x01", b"h\x00h\x01\x85R"),
    "arguments of objects": shared(b"cx\ny\nq\x00" + THOUSAND + b"lq\x01", b"h\x00h\x01\x85R"),
    "tuples as keys": b"\x80\x02}(" + KEYS + b"u.",
}


def read(tmp_path, data: bytes, limits: Limits):
    path = tmp_path / "bomb"
    path.write_bytes(data)
    source = Source(InputFile(path), 0, len(data))
    return run(source, Rebuilder(source, None, limits), limits)


@pytest.mark.parametrize("kind", OBJECTS)
def test_many_objects_are_refused_before_they_take_much_memory(tmp_path, kind):
    tracemalloc.start()
    try:
        with pytest.raises(MalformedError, match=r"than any real checkpoint"):
            read(tmp_path, OBJECTS[kind], Limits(STEPS, HELD))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 60 * STEPS + 2 * HELD  # 240 MB and the text, at the real limit of 4 million


@pytest.mark.parametrize("kind", COPIES)
def test_what_is_walked_again_and_again_is_counted_each_time(tmp_path, kind):
    assert len(COPIES[kind]) < 50_000
    with pytest.raises(MalformedError, match=r"than any real checkpoint"):
        read(tmp_path, COPIES[kind], Limits(STEPS, HELD))


def test_as_many_opcodes_that_make_and_walk_nothing_are_read(tmp_path):
    """Negative control: it is the work that is refused, not the length."""
    assert read(tmp_path, b"\x80\x02" + b"N0" * (STEPS // 2 - 10) + b"N.", Limits(STEPS, HELD)) is None


@pytest.mark.parametrize("number", [b"G" + bytes(8) + b"G" + bytes(8) + b"\x86R"])
def test_numbers_that_could_all_collide_are_no_keys(tmp_path, number):
    with pytest.raises(MalformedError, match="a complex is used as a key"):
        read(tmp_path, b"\x80\x02}cbuiltins\ncomplex\n" + number + b"Ns.", Limits())


def test_real_checkpoints_are_far_below_the_limits(tmp_path):
    """A tensor takes some 70 steps: 4 million are enough for tens of thousands of them."""
    import torch

    from nnopt_cli.formats.read import read as read_file

    torch.save({f"layer.{i}.weight": torch.zeros(2, 2) for i in range(200)}, tmp_path / "m.pt")
    used = Limits()
    data = (tmp_path / "m.pt").read_bytes()
    assert len(read_file(tmp_path / "m.pt").weights) == 200
    start = data.index(b"\x80\x02}")

    class Storages:
        def storage(self, key, size, itemsize):
            from nnopt_cli.formats.storage import Storage

            return Storage(source.file, size, itemsize, 0)

    source = Source(InputFile(tmp_path / "m.pt"), start, len(data))
    run(source, Rebuilder(source, Storages(), used), used)
    assert (Limits().steps - used.steps) / 200 < 80
    assert (Limits().held - used.held) / 200 < 400
