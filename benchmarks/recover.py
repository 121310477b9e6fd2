"""What fine-tuning wins back on CIFAR-10 (JPEG images), by the command line as a user types it.

    python benchmarks/recover.py                         # every row
    python benchmarks/recover.py --only 0.9,half+teacher

A ResNet-20 is pruned by magnitude and tuned for two epochs on the first 10,000 training images; another is
cut to half its multiply-accumulates and tuned from its .pt2 alone for four epochs on 20,000, without and
with the dense net as teacher. The recipe was chosen on the first 2,000 test images; figures are taken on
the other 8,000, and no run sees them before its end.
"""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow.parquet as pq
from _timing import Report, arguments, nnopt

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "data"
ARCH = f"{ROOT}/examples/resnet_cifar.py:resnet20"
CHOOSING = 2000  # first test rows, on which the recipe was chosen
SPARSITIES = {"dense": 0.85, "0.5": 0.845, "0.8": 0.83, "0.9": 0.79}  # row -> least test accuracy
HALF = {"half": 0.0, "half+teacher": 0.83}
RECIPE = (
    *("--normalize", "imagenet", "--augment", "flip", "--batch-size", "32", "--keep", "last"),
    *("--schedule", "cosine"),
)
OPTIMIZER, RATE = ("--optimizer", "nesterov:weight-decay=5e-4"), ("--lr", "0.02")
GENTLE = ("--optimizer", "nesterov:weight-decay=1e-4", "--lr", "0.015")  # for half: its weights are good ones
TEACHER = ("--teacher-weight", "0.3", "--temperature", "2")


def command(*args: object) -> dict[str, Any]:
    """Run nnopt and give its JSON document."""
    done = subprocess.run(
        [*nnopt(), *map(str, args), "--json"], capture_output=True, text=True, check=False, cwd=ROOT
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return dict(json.loads(done.stdout))


def pruned(row: str, source: Path, folder: Path) -> Path:
    """The model of a row before its training."""
    if row == "dense":
        return source
    if row in HALF:
        dense, half = folder / "dense.pt2", folder / "half.pt2"
        if not half.exists():
            command("convert", source, "--arch", ARCH, "--input", "3x32x32", "-o", dense)
            command("prune", dense, "--granularity", "channel", "--macs", "0.5", "-o", half)
        return half
    out = folder / f"{row}.pt"
    command("prune", source, "--sparsity", row, "-o", out)
    return out


def tuned(row: str, source: Path, folder: Path, report: Path, threads: int) -> dict[str, Any]:
    """The record of the training of a row."""
    model = pruned(row, source, folder)
    half = row in HALF
    args: list[object] = ["--data", SHARED / "cifar10" / "train.parquet", "--test", report, *RECIPE]
    args += ["--rows", ":20000", "--epochs", 4] if half else ["--rows", ":10000", "--epochs", 2]
    args += GENTLE if half else [*OPTIMIZER, *RATE, "--arch", ARCH]
    if row == "half+teacher":
        args += ["--teacher", folder / "dense.pt2", *TEACHER]
    return command("finetune", model, *args, "--threads", threads, "--dry-run")


if __name__ == "__main__":
    given = arguments(__doc__, only="", choose=0)
    wanted = [row for row in (*SPARSITIES, *HALF) if not given.only or row in given.only.split(",")]
    report, after = Report(given.check), {}
    with TemporaryDirectory() as home:
        table, side = pq.read_table(SHARED / "cifar10" / "test.parquet"), Path(home) / "test.parquet"
        pq.write_table(table.slice(0, CHOOSING) if given.choose else table.slice(CHOOSING), side)
        source = SHARED / "checkpoints" / "resnet20-12fca82f.th"
        for row in wanted:
            start = time.perf_counter()
            found = tuned(row, source, Path(home), side, given.threads)["training"]
            after[row] = found["after"]
            what = f"{row}: accuracy {found['before']:.4f} -> {found['after']:.4f}"
            spent = f"{time.perf_counter() - start:.0f} s"
            bar = {**SPARSITIES, **HALF}[row]
            report.bar(f"{what} ({spent})", after[row], bar, least=True, unit="")
        if {"half", "half+teacher"} <= after.keys():
            gain = after["half+teacher"] - after["half"]
            report.bar("half: what the teacher adds", gain, 0.0, least=True, unit="")
    report.finish()
