"""`nnopt prune` of a sharded folder, against `cp` and fsync of the same files: time and memory."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from _timing import Report, arguments, nnopt

ROWS, COLUMNS = 4096, 4096  # 64 MiB of float32 a tensor
TENSORS = 16  # a shard: 1 GiB
REST = 15.0  # seconds: on a virtual machine, memory freed a moment ago takes a write twice as fast


def build(folder: Path, gigabytes: float) -> None:
    """A sharded folder of normal float32 matrices of about that size, made anew unless it is there."""
    shards = max(1, round(gigabytes * 1e9 / (TENSORS * ROWS * COLUMNS * 4)))
    if (folder / "model.safetensors.index.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    places: dict[str, str] = {}
    nbytes = ROWS * COLUMNS * 4
    rng = np.random.default_rng(0)
    for shard in range(shards):
        file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        names = [f"layers.{shard * TENSORS + i}.proj.weight" for i in range(TENSORS)]
        entries = {
            name: {"dtype": "F32", "shape": [ROWS, COLUMNS], "data_offsets": [i * nbytes, (i + 1) * nbytes]}
            for i, name in enumerate(names)
        }
        header = json.dumps(entries).encode()
        header += b" " * (-len(header) % 8)
        with (folder / file).open("wb") as out:
            out.write(len(header).to_bytes(8, "little") + header)
            for _ in names:
                out.write(rng.standard_normal(ROWS * COLUMNS, dtype=np.float32).data)
        places |= dict.fromkeys(names, file)
    index = {"metadata": {"total_size": nbytes * len(places)}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def clear(scratch: Path, rest: float = REST) -> Path:
    """Delete what was made, write out what waits, and let the machine settle; returns `scratch`."""
    for made in ("copy", "pruned"):
        shutil.rmtree(scratch / made, ignore_errors=True)
    os.sync()
    time.sleep(rest)
    return scratch


def copy(source: Path, target: Path) -> float:
    """Seconds of `cp -r` and fsync of every file."""
    start = time.perf_counter()
    subprocess.run(["cp", "-r", "--reflink=never", source, target], check=True)
    for path in [*target.iterdir(), target]:
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
    return time.perf_counter() - start


def prune(source: Path, target: Path) -> tuple[float, float]:
    """Seconds of the whole command, and its peak resident megabytes."""
    start = time.perf_counter()
    child = subprocess.Popen(
        [*nnopt(), "prune", source, "--sparsity", "0.5", "-o", target, "--force"], stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        sys.exit(f"nnopt prune failed with exit code {child.returncode}")
    unit = 1 if sys.platform == "darwin" else 1 << 10
    return time.perf_counter() - start, usage.ru_maxrss * unit / 1e6


def measure(report: Report, scratch: Path, gigabytes: float, repeat: int) -> float:
    """Interleaved rounds at one size; returns the peak resident megabytes."""
    source = scratch / f"model-{gigabytes:g}gb"
    build(source, gigabytes)
    rounds = []
    for _ in range(repeat):
        copied = copy(source, clear(scratch) / "copy")
        rounds.append((copied, *prune(source, clear(scratch) / "pruned")))
    clear(scratch, 0)
    copied, pruned, peak = (statistics.median(figures) for figures in zip(*rounds, strict=True))
    what = f"{gigabytes:g} GB sharded float32: {pruned:.1f} s, cp + fsync {copied:.1f} s (medians)"
    report.bar(what, pruned / copied, 2.0)
    report.bar(f"peak resident memory of the process, {gigabytes:g} GB", peak, 550.0, unit="MB")
    return peak


if __name__ == "__main__":
    given = arguments(__doc__, scratch="", gb="5,10")
    if not given.scratch:
        sys.exit("give --scratch FOLDER on the disk to measure, with room for three times the largest --gb")
    report, scratch = Report(given.check), Path(given.scratch)
    peaks = [measure(report, scratch, float(size), given.repeat) for size in given.gb.split(",")]
    if len(peaks) > 1:
        report.bar("peak at the largest size beyond the smallest's", peaks[-1] - peaks[0], 55.0, unit="MB")
    report.finish()
