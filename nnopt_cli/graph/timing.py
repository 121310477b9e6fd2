"""Latency of programs, side by side: they take short turns, so that a drifting machine slows all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from nnopt_cli.errors import NnoptError
from nnopt_cli.graph.backends import Backend, limited, prepare
from nnopt_cli.graph.inputs import sample_inputs
from nnopt_cli.graph.setting import Ready, Setting

if TYPE_CHECKING:
    from torch.export import ExportedProgram

TURN = 0.05  # seconds that one call has to itself


@dataclass(frozen=True)
class Latency:
    """Wall time of one forward pass, in seconds.

    Attributes:
        median: of all runs.
        low: the lower quartile.
        high: the upper quartile.
        runs: how many were counted.
    """

    median: float
    low: float
    high: float
    runs: int


class Stopwatch:
    """Times programs against a first one as they are deployed: in ONNX Runtime, one sample, one thread.

    Where the first one does not run there, PyTorch stands in.

    Attributes:
        where: what it is timed in.
    """

    def __init__(self, dense: ExportedProgram, folder: Path) -> None:
        """`folder`: where ONNX files may lie as long as this is used."""
        self._folder = folder
        self._backend: Backend = "onnx"
        self.where = "ONNX Runtime"
        try:
            self._dense = self._ready(dense)
        except NnoptError:
            self._backend, self.where = "eager", "PyTorch"
            self._dense = self._ready(dense)

    def against(self, small: ExportedProgram, seconds: float = 0.5) -> tuple[Latency, Latency]:
        """The latency of the first program and of `small`, interleaved, measured for about `seconds` each.

        Raises NnoptError where `small` does not run.
        """
        pair = (self._dense.call, self._ready(small).call)
        with limited(1):
            dense, now = interleaved(pair, seconds)
        return dense, now

    def _ready(self, program: ExportedProgram) -> Ready:
        with limited(1):
            return prepare(program, self._backend, Setting(), self._folder)


def latencies(
    programs: Sequence[ExportedProgram],
    batch: int = 1,
    device: str = "cpu",
    seconds: float = 1.0,
    least: int = 7,
) -> list[Latency]:
    """Time each program's forward pass in PyTorch, interleaved run by run.

    Args:
        programs: what to compare; each gets random inputs of its own signature.
        batch: size of the leading dynamic dimension.
        device: where to run; CUDA is synchronised around every run.
        seconds: about how long to measure each one.
        least: runs of each at the least.
    """
    modules = [program.module().to(device) for program in programs]
    inputs = [_moved(sample_inputs(program, batch), device) for program in programs]
    calls = [lambda m=m, x=x: m(*x) for m, x in zip(modules, inputs, strict=True)]
    with torch.inference_mode():
        return interleaved(calls, seconds, least, device)


def interleaved(
    calls: Sequence[Callable[[], Any]], seconds: float = 1.0, least: int = 7, device: str = "cpu"
) -> list[Latency]:
    """Time some calls against one another, each for a short turn in every round.

    A turn is as long for all. Its first run does not count: it finds the caches full of what another
    call left there, which a network that is deployed by itself never does. Two rounds first to warm up.
    It ends after `seconds` for each call on average, but not before each had `least` runs.
    """
    for _ in range(2):
        for call in calls:
            _timed(call, device)
    seen: list[list[float]] = [[] for _ in calls]
    end = time.perf_counter() + seconds * len(calls)
    while min(map(len, seen)) < least or (time.perf_counter() < end and len(seen[0]) < 10_000):
        for call, times in zip(calls, seen, strict=True):
            times += _turn(call, device)
    return [_summary(times) for times in seen]


def _turn(call: Callable[[], Any], device: str) -> list[float]:
    end = time.perf_counter() + TURN
    _timed(call, device)
    times = [_timed(call, device)]
    while time.perf_counter() < end:
        times.append(_timed(call, device))
    return times


def _timed(call: Callable[[], Any], device: str) -> float:
    _settle(device)
    start = time.perf_counter()
    call()
    _settle(device)
    return time.perf_counter() - start


def _settle(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    elif device == "mps":
        torch.mps.synchronize()


def _summary(times: list[float]) -> Latency:
    low, median, high = statistics.quantiles(times, n=4)
    return Latency(median, low, high, len(times))


def _moved(inputs: list[Any], device: str) -> list[Any]:
    return [value.to(device) if isinstance(value, torch.Tensor) else value for value in inputs]
