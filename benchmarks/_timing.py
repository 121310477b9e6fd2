"""What the benchmarks share: interleaved timing, ratios beside their bars, memory of the process."""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch loads: its threads sleep while others work

import numpy as np
import numpy.typing as npt


def arguments(description: str | None, **defaults: float | str) -> argparse.Namespace:
    """`--check`, `--repeat`, `--threads`, and one option for each of `defaults`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--check", action="store_true", help="exit 1 if a bar is missed")
    parser.add_argument("--repeat", type=int, default=7, help="interleaved rounds; the minimum counts")
    parser.add_argument("--threads", type=int, default=min(8, os.cpu_count() or 1))
    for name, default in defaults.items():
        parser.add_argument(f"--{name}", type=type(default), default=default)
    return parser.parse_args()


def interleaved(sides: Mapping[str, Callable[[], object]], repeat: int) -> dict[str, list[float]]:
    """Seconds of every call: all sides in turn, `repeat` rounds, so that a busy machine slows all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeat):
        for name, call in sides.items():
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def paired(seconds: Mapping[str, list[float]], side: str, against: str) -> float:
    """How often `side` goes into `against`: the median over the rounds, each with itself.

    Neighbours in time see the same machine, and a median takes no notice of rounds that something disturbed.
    """
    return float(np.median(np.divide(seconds[against], seconds[side])))


def milliseconds(sides: Mapping[str, Callable[[], object]], repeat: int) -> dict[str, float]:
    """The fastest call of every side, in milliseconds; interleaved."""
    return {name: min(times) * 1e3 for name, times in interleaved(sides, repeat).items()}


@dataclass
class Report:
    """Lines of figures beside their bars; `finish` gives the exit code."""

    check: bool = False
    missed: list[str] = field(default_factory=list)

    def bar(self, what: str, value: float, bar: float, *, least: bool = False, unit: str = "x") -> None:
        """Print one figure; `least` says that it must be at least `bar`, otherwise at most."""
        good = value >= bar if least else value <= bar
        wanted = f"{'>=' if least else '<='} {bar:g}{unit}"
        print(f"{what:<72} {value:8.2f}{unit:<2}  {wanted:<10} {'ok' if good else 'MISSED'}", flush=True)
        if not good:
            self.missed.append(what)

    def finish(self) -> None:
        """Exit: 1 if a bar was missed and `--check` was given."""
        sys.exit(1 if self.check and self.missed else 0)


def in_threads(work: Callable[[int, int], object], count: int, threads: int, step: int = 1 << 17) -> None:
    """Call `work(start, stop)` on stretches of `range(count)`, from several threads."""
    starts = iter(range(0, count, step))
    lock = threading.Lock()

    def loop() -> None:
        while True:
            with lock:
                start = next(starts, None)
            if start is None:
                return
            work(start, min(count, start + step))

    pool = [threading.Thread(target=loop) for _ in range(threads)]
    for thread in pool:
        thread.start()
    for thread in pool:
        thread.join()


def normal(count: int, seed: int = 0) -> npt.NDArray[np.float32]:
    """Normal float32 weights; made in pieces, so that making them leaves no trace in peak memory."""
    rng = np.random.default_rng(seed)
    out = np.empty(count, np.float32)
    for start in range(0, count, 1 << 20):
        rng.standard_normal(out=out[start : start + (1 << 20)], dtype=np.float32)
    return out


def resident() -> int:
    """Peak resident bytes of this process since `reset_peak`, or since it started."""
    with open("/proc/self/status") as status:  # noqa: PTH123
        return next(int(line.split()[1]) << 10 for line in status if line.startswith("VmHWM"))


def reset_peak() -> None:
    """Start a new peak."""
    with open("/proc/self/clear_refs", "w") as control:  # noqa: PTH123
        control.write("5")


def nnopt() -> list[str]:
    """The command of this interpreter's environment."""
    return [str(Path(sys.executable).parent / "nnopt")]
