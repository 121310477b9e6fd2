"""Select and apply on a CUDA device, against its own copy bandwidth; and the same mask as on the CPU."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import numpy as np
from _timing import Report, arguments
from nnopt_plugins.prune.bracket import Finder
from nnopt_plugins.prune.criteria import Magnitude
from nnopt_plugins.prune.device import DeviceFinder, apply
from nnopt_plugins.prune.granularities import WeightGranularity
from nnopt_plugins.prune.source import Item, Scorer, Source, key_for

from nnopt_cli import MemoryWeight
from nnopt_cli.formats.dtypes import dtype_named


def source_of(words: np.ndarray, dtype: str) -> Source:  # type: ignore[type-arg]
    """The competition of one tensor's weights."""
    items = [Item("weight", MemoryWeight("weight", dtype_named(dtype), words), 0)]
    grouping = WeightGranularity()
    return Source(items, Scorer(Magnitude(), key_for(Magnitude(), items, grouping), 0, grouping))


def seconds(call: Callable[[], object]) -> float:
    """One call, from an idle device to an idle device."""
    import torch

    torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    import torch

    given = arguments(__doc__, gb=4)
    if not torch.cuda.is_available():
        print("no CUDA device: nothing measured")
        sys.exit(0)
    report = Report(given.check)
    for name, word in (("float32", "<f4"), ("bfloat16", "<u2")):
        dtype = getattr(torch, name)
        count = int(given.gb * 1e9) // dtype.itemsize
        torch.manual_seed(0)
        original = torch.randn(count, device="cuda", dtype=dtype)
        worked, spare = original.clone(), torch.empty_like(original)
        raw = original.view(torch.int16 if name == "bfloat16" else torch.int32)
        words = raw.cpu().numpy().view(word)
        source = source_of(words, name)

        def prune(tensor: torch.Tensor, source: Source = source, half: int = count // 2) -> None:
            cut = DeviceFinder(source, "cuda", tensors=[tensor]).find(half)
            apply(tensor, cut, source.scorer.key, 0)

        times: dict[str, list[float]] = {"prune": [], "copy": []}
        for _ in range(given.repeat):
            worked.copy_(original)
            times["prune"].append(seconds(lambda tensor=worked: prune(tensor)))  # type: ignore[misc]
            times["copy"].append(seconds(lambda a=spare, b=original: a.copy_(b)))  # type: ignore[misc]
        cut = Finder(source, threads=given.threads).find(count // 2)
        expected = original.clone()
        apply(expected, cut, source.scorer.key, 0)
        report.bar(f"{name}: masks that differ from the CPU's", float(not torch.equal(expected, worked)), 0.0)
        ratio = min(times["copy"]) / min(times["prune"])
        what = f"{given.gb:g} GB {name}: {min(times['prune']) * 1e3:.1f} ms; of the copy bandwidth"
        report.bar(what, 100 * ratio, 25.0, least=True, unit="%")
    report.finish()


if __name__ == "__main__":
    main()
