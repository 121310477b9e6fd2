"""Work in forked processes: complete, in order, and gone when it ends, however it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from nnopt_cli.errors import NnoptError
from nnopt_cli.formats import stream
from nnopt_cli.formats.forks import can_fork, in_forks

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux forks")

Tick = Callable[[int], None]

# The command with a size from which it forks that tests can afford; it says on stderr where it did.
COMMAND = """
import sys
import nnopt_cli.formats.forks as forks, nnopt_cli.formats.stream as stream
stream.FORKED_BYTES = {least}
real = forks.in_forks
def told(*given, **named):
    print("FORKED", file=sys.stderr)
    return real(*given, **named)
forks.in_forks = told
from nnopt_cli.app import main
sys.exit(main())
"""


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def ignore(done: int) -> None:
    pass


def test_all_is_done_once_by_other_processes() -> None:
    seen: list[int] = []

    def work(number: int, tick: Tick) -> tuple[int, int]:
        tick(number)
        time.sleep(0.01)
        return number**2, os.getpid()

    found, peak = in_forks(3, list(range(40)), work, tick=seen.append)
    assert {number: square for number, (square, _) in found.items()} == {n: n * n for n in range(40)}
    workers = {pid for _, pid in found.values()}
    assert os.getpid() not in workers
    assert 1 < len(workers) <= 3
    assert sorted(seen) == list(range(40))
    assert peak > 1 << 20
    assert not any(map(alive, workers))


def test_an_exception_is_raised_here_with_its_traceback() -> None:
    def work(number: int, tick: Tick) -> int:
        if number == 7:
            raise ZeroDivisionError("seven")
        return number

    with pytest.raises(ZeroDivisionError, match="seven") as caught:
        in_forks(2, range(20), work, tick=ignore)
    assert caught.traceback[-1].name == "work"


def test_what_fails_in_a_process_alone_is_done_here() -> None:
    here = os.getpid()

    def work(number: int, tick: Tick) -> int:
        if os.getpid() != here and number == 3:
            raise MemoryError
        return number + 1

    found, _ = in_forks(2, range(6), work, tick=ignore)
    assert found == {number: number + 1 for number in range(6)}


def test_a_killed_process_is_an_error_and_ends_the_others(tmp_path: Path) -> None:
    def work(number: int, tick: Tick) -> int:
        (tmp_path / str(os.getpid())).touch()
        if number == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)
        return number

    start = time.monotonic()
    with pytest.raises(NnoptError, match="SIGKILL") as caught:
        in_forks(3, range(9), work, tick=ignore)
    assert "--threads 1" in (caught.value.hint or "")
    assert time.monotonic() - start < 30
    assert not any(alive(int(path.name)) for path in tmp_path.iterdir())


def test_a_process_that_exits_says_how() -> None:
    here = os.getpid()

    def work(number: int, tick: Tick) -> int:
        if os.getpid() != here:
            os._exit(9)
        return number

    with pytest.raises(NnoptError, match="exit code 9") as caught:
        in_forks(2, range(4), work, tick=ignore)
    assert "Memory" not in (caught.value.hint or "")


def test_an_exit_within_the_work_is_raised_here() -> None:
    def work(number: int, tick: Tick) -> int:
        raise SystemExit(3)

    with pytest.raises(SystemExit) as caught:
        in_forks(2, range(4), work, tick=ignore)
    assert caught.value.code == 3


@pytest.mark.parametrize("where", ["tick", "meanwhile"])
def test_an_interrupt_ends_the_processes(tmp_path: Path, where: str) -> None:
    def work(number: int, tick: Tick) -> int:
        (tmp_path / str(os.getpid())).touch()
        tick(1)
        time.sleep(60)
        return number

    def interrupt(done: int = 0) -> None:
        raise KeyboardInterrupt

    given = {"tick": interrupt} if where == "tick" else {"tick": ignore, "meanwhile": interrupt}
    with pytest.raises(KeyboardInterrupt):
        in_forks(2, range(4), work, **given)  # type: ignore[arg-type]
    assert not any(alive(int(path.name)) for path in tmp_path.iterdir())


@pytest.mark.parametrize("allowed", [0, 1])
def test_fewer_processes_do_it_too(monkeypatch: pytest.MonkeyPatch, allowed: int) -> None:
    left, fork = [None] * allowed, os.fork

    def limited() -> int:
        if not left:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        left.pop()
        return fork()

    monkeypatch.setattr(os, "fork", limited)
    found, _ = in_forks(3, range(10), lambda number, tick: (number, os.getpid()), tick=ignore)
    assert [number for number, _ in found.values()] == list(range(10))
    assert (os.getpid() in {pid for _, pid in found.values()}) == (allowed == 0)


def test_not_beside_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert can_fork()
    monkeypatch.setitem(sys.modules, "torch", object())
    assert not can_fork()


@pytest.fixture
def models(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    start = {f"layers.{i}.weight": rng.standard_normal((512, 1024 + i), np.float32) for i in range(6)}
    for place, name in enumerate(("base", "a", "b")):
        moved = {
            key: value + 0.1 * rng.standard_normal(value.shape, np.float32) for key, value in start.items()
        }
        steps = np.arange(5) * place
        save_file({**moved, "steps": steps}, tmp_path / f"{name}.safetensors")
    return tmp_path


def ensemble(folder: Path, *arguments: str, least: int) -> subprocess.CompletedProcess[str]:
    files = ["ensemble", "a.safetensors", "b.safetensors", "--threads", "2", "--json", *arguments]
    return subprocess.run(
        [sys.executable, "-c", COMMAND.format(least=least), *files],
        cwd=folder,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    "method",
    [
        ["linear"],
        ["slerp"],
        ["ties", "--base", "base.safetensors"],
        ["dare-ties", "--base", "base.safetensors"],
    ],
)
def test_a_merge_is_the_same_as_in_threads(models: Path, method: list[str]) -> None:
    ways = {"forked": 0, "threaded": 1 << 40}
    records = {}
    for name, least in ways.items():
        done = ensemble(models, "--method", *method, "-o", f"{name}.safetensors", least=least)
        assert done.returncode == 0, done.stderr
        assert ("FORKED" in done.stderr) == (name == "forked")
        records[name] = json.loads(done.stdout)
    forked, threaded = (load_file(models / f"{name}.safetensors") for name in ways)
    assert all(np.array_equal(forked[name], threaded[name]) for name in threaded)
    assert np.array_equal(forked["steps"], np.arange(5) * 2)
    apart = {"seconds", "peak_bytes", "output"}
    forked_record, threaded_record = (
        {key: value for key, value in records[name].items() if key not in apart} for name in ways
    )
    assert forked_record == threaded_record
    assert "integers" in str(records["forked"]["notes"])
    assert records["forked"]["peak_bytes"] > records["threaded"]["peak_bytes"]


def test_nan_is_found_in_a_forked_merge_and_leaves_nothing(models: Path) -> None:
    broken = load_file(models / "b.safetensors")
    broken["layers.3.weight"][100, 100] = np.nan
    save_file(broken, models / "b.safetensors")
    done = ensemble(models, "--method", "linear", "-o", "out.safetensors", least=0)
    assert done.returncode == 1
    assert "FORKED" in done.stderr
    assert "b.safetensors: layers.3.weight holds NaN" in json.loads(done.stdout)["error"]["message"]
    assert sorted(path.name for path in models.iterdir()) == [
        "a.safetensors",
        "b.safetensors",
        "base.safetensors",
    ]


def test_processes_do_not_outlive_the_first(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import os, time\n"
        "from nnopt_cli.formats.forks import in_forks\n"
        "def work(number, tick):\n"
        "    os.write(1, b'%d\\n' % os.getpid())\n"
        "    while True:\n"
        "        time.sleep(0.02)\n"
        "        tick(1)\n"
        "in_forks(2, range(2), work, tick=lambda done: None)\n"
    )
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE) as first:
        try:
            assert first.stdout is not None
            pids = [int(first.stdout.readline()) for _ in range(2)]
        finally:
            first.kill()
    end = time.monotonic() + 10
    while any(map(alive, pids)) and time.monotonic() < end:
        time.sleep(0.02)
    assert not any(map(alive, pids))


@pytest.mark.parametrize(
    ("total", "rest", "forked"), [(1 << 26, 0, True), (1 << 25, 0, False), (1 << 27, 1 << 26, False)]
)
def test_processes_are_for_large_models_that_they_can_do_all_but_whole(
    monkeypatch: pytest.MonkeyPatch, total: int, rest: int, forked: bool
) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert stream._forkable(total, rest) == forked
