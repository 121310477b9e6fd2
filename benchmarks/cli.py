"""What starting costs: `nnopt --help` and a small prune, against `import torch`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _timing import Report, arguments, nnopt, normal


def run(command: list[str]) -> tuple[float, float]:
    """CPU and wall seconds of a process."""
    start = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    wall = time.perf_counter() - start
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        sys.exit(f"{' '.join(command)} failed with exit code {child.returncode}")
    return usage.ru_utime + usage.ru_stime, wall


def imports_torch() -> bool:
    """Whether `nnopt --help` imports torch."""
    seen = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "nnopt_cli", "--help"], capture_output=True, check=True
    )
    return any(line.split("|")[-1].strip() == "torch" for line in seen.stderr.decode().splitlines())


def small_file(path: Path) -> None:
    """1 MB of float32 in four matrices."""
    count, names = 65_536, [f"layers.{i}.weight" for i in range(4)]
    entries = {
        name: {"dtype": "F32", "shape": [256, 256], "data_offsets": [4 * count * i, 4 * count * (i + 1)]}
        for i, name in enumerate(names)
    }
    header = json.dumps(entries).encode()
    header += b" " * (-len(header) % 8)
    path.write_bytes(len(header).to_bytes(8, "little") + header + normal(4 * count).tobytes())


if __name__ == "__main__":
    given = arguments(__doc__)
    report = Report(given.check)
    with tempfile.TemporaryDirectory() as folder:
        # As installed: with bytecode, which an editable install may have been told not to keep.
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYTHONPYCACHEPREFIX"] = str(Path(folder) / "bytecode")
        source, target = Path(folder) / "model.safetensors", Path(folder) / "pruned.safetensors"
        small_file(source)
        prune = [*nnopt(), "prune", str(source), "--sparsity", "0.5", "-o", str(target), "--force"]
        sides = {
            "help": [*nnopt(), "--help"],
            "prune": prune,
            "torch": [sys.executable, "-c", "import torch"],
        }
        for command in sides.values():
            run(command)  # compile and warm the file cache
        best = {name: (float("inf"), float("inf")) for name in sides}
        for _ in range(given.repeat):
            for name, command in sides.items():
                best[name] = tuple(map(min, best[name], run(command)))  # type: ignore[assignment]
    what = f"nnopt --help: {best['help'][0]:.2f} s of CPU, import torch {best['torch'][0]:.2f} s"
    report.bar(what, best["help"][0] / best["torch"][0], 0.4)
    report.bar("nnopt --help, wall", best["help"][1], 0.35, unit="s")
    what = f"nnopt prune of 1 MB: {best['prune'][1]:.2f} s, import torch {best['torch'][1]:.2f} s (wall)"
    report.bar(what, best["prune"][1] / best["torch"][1], 1.3)
    report.bar("imports of torch by nnopt --help", float(imports_torch()), 0.0, unit="")
    report.finish()
