"""`nnopt ensemble` in weight space against a streaming average in numpy: time and memory; mergekit beside it.

`--mergekit PATH` names the `mergekit-yaml` of an environment of its own; without it those rows are left out.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
from _llama import Llama
from _timing import Report, arguments, nnopt

WIDTH, INNER, WORDS = 2048, 5632, 32_000
CHUNK = 1 << 20  # elements that a thread of the reference holds at once
BARS = {"linear": 1.3, "slerp": 1.3, "ties": 1.5, "dare-ties": 1.5}
FASTER = {"linear": 1.5, "slerp": 2.0, "ties": 3.5}
SPEC = {"ties": "ties:density=0.5", "dare-ties": "dare-ties:density=0.5"}
MEMORY = 600.0  # MB, whole process


def round_to_bfloat16(values: np.ndarray) -> np.ndarray:
    """The words of float32 `values`, rounded to the nearest even."""
    bits = values.view(np.uint32)
    return ((bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def build(folder: Path, gigabytes: float) -> dict[str, Path]:
    """An ancestor and two fine-tunes of it, Llamas in bfloat16; made anew unless they are there."""
    layers = max(1, round((gigabytes * 1e9 / 2 - 2 * WORDS * WIDTH) / (4 * WIDTH**2 + 3 * WIDTH * INNER)))
    paths = {name: folder / f"llama-{layers}-{name}" / "model.safetensors" for name in ("base", "a", "b")}
    if all(path.exists() for path in paths.values()):
        return paths
    llama = Llama(WIDTH, INNER, WORDS, layers, heads=16)
    entries, at = {}, 0
    for name, shape in llama.shapes().items():
        end = at + 2 * math.prod(shape)
        entries[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, end]}
        at = end
    header = json.dumps(entries).encode()
    header += b" " * (-len(header) % 8)
    for path in paths.values():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(len(header).to_bytes(8, "little") + header)
        (path.parent / "config.json").write_text(llama.config())
    rng = np.random.default_rng(0)
    for first in range(0, at // 2, CHUNK):
        count = min(CHUNK, at // 2 - first)
        start = rng.standard_normal(count, dtype=np.float32) * np.float32(0.02)
        for name, path in paths.items():
            moved = rng.standard_normal(count, dtype=np.float32) * np.float32(0.002)
            with path.open("ab") as out:
                out.write(round_to_bfloat16(start if name == "base" else start + moved).data)
    return paths


def reference(a: Path, b: Path, target: Path, threads: int) -> float:
    """Seconds of reading, averaging and writing in numpy: `threads` threads, buffers made once, synced."""
    start = time.perf_counter()
    skip = header_end(a)
    total = (a.stat().st_size - skip) // 2
    places = iter(range(0, total, CHUNK))
    lock = threading.Lock()
    left, right = os.open(a, os.O_RDONLY), os.open(b, os.O_RDONLY)
    out = os.open(target, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    os.pwrite(out, os.pread(left, skip, 0), 0)

    def work() -> None:
        words = [np.empty(CHUNK, np.uint16) for _ in range(2)]
        wide = [np.empty(CHUNK, np.uint32) for _ in range(2)]
        odd = np.empty(CHUNK, np.uint32)
        while True:
            with lock:
                at = next(places, None)
            if at is None:
                return
            count = min(CHUNK, total - at)
            for file, own, bits in zip((left, right), words, wide, strict=True):
                os.preadv(file, [own[:count]], skip + 2 * at)
                np.left_shift(own[:count], 16, out=bits[:count], dtype=np.uint32)
            one, other = (bits[:count].view(np.float32) for bits in wide)
            np.add(one, other, out=one)
            np.multiply(one, np.float32(0.5), out=one)
            bits, rest = wide[0][:count], odd[:count]
            np.right_shift(bits, 16, out=rest)
            np.bitwise_and(rest, 1, out=rest)
            np.add(rest, 0x7FFF, out=rest)
            np.add(bits, rest, out=bits)
            np.right_shift(bits, 16, out=bits)
            np.copyto(words[0][:count], bits, casting="unsafe")
            os.pwrite(out, words[0][:count], skip + 2 * at)

    pool = [threading.Thread(target=work) for _ in range(threads)]
    for thread in pool:
        thread.start()
    for thread in pool:
        thread.join()
    os.fsync(out)
    for file in (left, right, out):
        os.close(file)
    return time.perf_counter() - start


def header_end(path: Path) -> int:
    """The byte at which a safetensors file's data begin."""
    with path.open("rb") as file:
        return 8 + int.from_bytes(file.read(8), "little")


def fuse(paths: dict[str, Path], method: str, target: Path, threads: int) -> tuple[float, float]:
    """Seconds and peak megabytes of the command, whole process."""
    command = [*nnopt(), "ensemble", str(paths["a"]), str(paths["b"]), "--method", SPEC.get(method, method)]
    command += ["--base", str(paths["base"])] if method in SPEC else []
    start = time.perf_counter()
    done = subprocess.run(
        [*command, "-o", str(target), "--force", "--threads", str(threads), "--json"],
        capture_output=True,
        check=True,
    )
    return time.perf_counter() - start, json.loads(done.stdout)["peak_bytes"] / 1e6


def mergekit(command: str, paths: dict[str, Path], method: str, scratch: Path) -> tuple[float, float]:
    """The same by mergekit's command."""
    models = [{"model": str(paths[name].parent)} for name in ("a", "b")]
    recipe: dict[str, object] = {"dtype": "bfloat16", "merge_method": method, "models": models}
    if method == "linear":
        for model in models:
            model["parameters"] = {"weight": 0.5}  # type: ignore[assignment]
    elif method == "slerp":
        recipe |= {"base_model": str(paths["a"].parent), "parameters": {"t": 0.5}}
    else:
        recipe["base_model"] = str(paths["base"].parent)
        for model in models:
            model["parameters"] = {"weight": 1.0, "density": 0.5}  # type: ignore[assignment]
    file = scratch / "recipe.json"  # JSON is YAML
    file.write_text(json.dumps(recipe))
    start = time.perf_counter()
    child = subprocess.Popen(
        [command, str(file), str(scratch / "merged"), "--no-copy-tokenizer"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    _, status, used = os.wait4(child.pid, 0)
    if status or not list((scratch / "merged").glob("*.safetensors")):
        raise SystemExit(f"mergekit failed on {method}")
    return time.perf_counter() - start, used.ru_maxrss * 1024 / 1e6


def small(scratch: Path, repeat: int, report: Report) -> None:
    """Two files of 1 MB, whole process, against `import torch`."""
    import torch

    torch.manual_seed(0)
    first = {f"{i}.weight": torch.randn(256, 256) for i in range(4)}
    torch.save(first, scratch / "a.pt")
    torch.save({name: w + 0.01 * torch.randn_like(w) for name, w in first.items()}, scratch / "b.pt")
    files = [str(scratch / "a.pt"), str(scratch / "b.pt"), "-o", str(scratch / "ab.pt"), "--force", "-q"]
    sides = {"torch": [sys.executable, "-c", "import torch"], "nnopt": [*nnopt(), "ensemble", *files]}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeat):
        for name, command in sides.items():
            start = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            seconds[name].append(time.perf_counter() - start)
    ratio = min(seconds["nnopt"]) / min(seconds["torch"])
    report.bar(f"two 1 MB files: {min(seconds['nnopt']):.2f} s against `import torch`", ratio, 1.3)


def main() -> None:
    defaults = {
        "gigabytes": 1.1,
        "scratch": "/tmp/nnopt-ensemble",
        "mergekit": "",
        "large": 0.0,
        "rest": 15.0,
    }
    given = arguments(__doc__, **defaults)  # type: ignore[arg-type]
    scratch, report = Path(given.scratch).resolve(), Report(given.check)
    scratch.mkdir(parents=True, exist_ok=True)
    paths = build(scratch / "models", given.gigabytes)
    target = scratch / "fused.safetensors"
    own = scratch / "reference.safetensors"  # each side replaces what it wrote itself
    ours: dict[str, list[tuple[float, float]]] = {method: [] for method in BARS}
    beside: dict[str, list[float]] = {method: [] for method in BARS}
    for _ in range(given.repeat):
        for method, found in ours.items():
            time.sleep(given.rest)  # whoever writes into memory that was freed a moment ago is twice as fast
            beside[method].append(reference(paths["a"], paths["b"], own, 2))
            time.sleep(given.rest)
            found.append(fuse(paths, method, target, 2))
    every = [seconds for method in beside for seconds in beside[method]]
    print(f"reference: {min(every):.2f} to {max(every):.2f} s for {given.gigabytes:g} GB a model")
    for method, found in ours.items():
        seconds = statistics.median(each[0] for each in found)
        ratio = statistics.median(
            each[0] / other for each, other in zip(found, beside[method], strict=True)
        )  # of neighbours in time: a shared machine's speed changes by the minute
        report.bar(f"{method}: {seconds:.2f} s against the reference", ratio, BARS[method])
        report.bar(f"{method}: peak memory", max(each[1] for each in found), MEMORY, unit="MB")
    if given.large:
        large = build(scratch / "models", given.large)
        for method in BARS:
            seconds, peak = fuse(large, method, target, 2)
            report.bar(f"{method}, {given.large:g} GB: {seconds:.1f} s, peak memory", peak, MEMORY, unit="MB")
    for method, bar in FASTER.items() if given.mergekit else ():
        theirs = [mergekit(given.mergekit, paths, method, scratch) for _ in range(given.repeat)]
        seconds = statistics.median(each[0] for each in ours[method])
        other = statistics.median(each[0] for each in theirs)
        report.bar(f"{method}: {other:.1f} s by mergekit, times ours", other / seconds, bar, least=True)
        memory = min(each[1] for each in theirs) / max(each[1] for each in ours[method])
        report.bar(f"{method}: mergekit's memory, times ours", memory, 8, least=True)
    small(scratch, given.repeat, report)
    report.finish()


if __name__ == "__main__":
    main()
