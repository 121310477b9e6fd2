"""Large files are written past the page cache, and hold the same bytes wherever pieces of them begin."""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path
from threading import Thread

import pytest

from nnopt_cli.errors import NnoptError
from nnopt_cli.formats import atomic, direct
from nnopt_cli.formats.atomic import OutputFile
from nnopt_cli.formats.direct import PAGE, DirectFile

SIZE = 9 << 20
BYTES = random.Random(0).randbytes(SIZE)


@pytest.fixture(autouse=True)
def small_files_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atomic, "_LARGE", 1 << 20)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many bytes each write past the cache took."""
    sizes: list[int] = []
    true = DirectFile.write_at

    def noted(self: DirectFile, data: memoryview, offset: int) -> int:
        assert offset % PAGE == 0 == len(data) % PAGE
        sizes.append(true(self, data, offset))
        return sizes[-1]

    monkeypatch.setattr(DirectFile, "write_at", noted)
    return sizes


def supported(folder: Path) -> bool:
    probe = folder / "probe"
    probe.write_bytes(bytes(PAGE))
    file = DirectFile.open(probe)
    if file is None:
        return False
    done = file.write_at(memoryview(bytes(PAGE)), 0)
    file.close()
    return done == PAGE


def write(path: Path, cuts: list[int]) -> None:
    """Write BYTES, cut at `cuts`, the pieces out of order from two threads."""
    file = OutputFile(path, SIZE)
    pieces = list(zip(cuts, [*cuts[1:], SIZE], strict=True))
    random.Random(1).shuffle(pieces)

    def work(part: int) -> None:
        for start, stop in pieces[part::2]:
            file.write_at(memoryview(BYTES)[start:stop], start)

    threads = [Thread(target=work, args=(part,)) for part in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    file.close()


@pytest.mark.parametrize("step", [PAGE, 1 << 20, (1 << 20) + 8, 3_000_001, SIZE])
def test_bytes_are_the_same_wherever_pieces_begin(tmp_path: Path, step: int, seen: list[int]) -> None:
    for first in (0, 1, 328, PAGE - 1, PAGE):
        cuts = sorted({0, *range(first, SIZE, step)})
        write(tmp_path / f"{first}", cuts)
        assert (tmp_path / f"{first}").read_bytes() == BYTES
    if step > PAGE and supported(tmp_path):
        assert sum(seen) > 4 * SIZE  # nearly all of five files


def test_a_file_system_that_refuses_gets_all_of_it_the_usual_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true, calls = os.pwrite, []

    def refusing(fd: int, data: bytes, offset: int) -> int:
        if os.get_blocking(fd) and len(data) >= direct.PAGE and offset % PAGE == 0 and not calls:
            calls.append(offset)
            raise OSError(errno.EINVAL, "no")
        return true(fd, data, offset)

    monkeypatch.setattr(direct.os, "pwrite", refusing)
    if not supported_quietly(tmp_path):
        pytest.skip("this file system does not take direct writes")
    calls.clear()
    write(tmp_path / "out", [0, 1 << 20, 5 << 20])
    assert calls
    assert (tmp_path / "out").read_bytes() == BYTES


def supported_quietly(folder: Path) -> bool:
    probe = folder / "probe"
    probe.write_bytes(bytes(PAGE))
    return DirectFile.open(probe) is not None


def test_a_short_write_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    true = DirectFile.write_at
    monkeypatch.setattr(DirectFile, "write_at", lambda self, data, offset: true(self, data[:PAGE], offset))
    write(tmp_path / "out", [0, 1 << 20, 5 << 20])
    assert (tmp_path / "out").read_bytes() == BYTES


def test_without_such_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(direct.os, "O_DIRECT", raising=False)
    assert DirectFile.open(tmp_path / "out") is None
    write(tmp_path / "out", [0, 1 << 20])
    assert (tmp_path / "out").read_bytes() == BYTES


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, data: bytes, offset: int) -> int:
        raise OSError(errno.ENOSPC, "full")

    file = OutputFile(tmp_path / "out", SIZE)
    monkeypatch.setattr(direct.os, "pwrite", full)
    with pytest.raises(NnoptError, match="space"):
        file.write_at(BYTES, 0)
    file.close(sync=False)
