"""Magnitude pruning in memory: select and apply, against one read pass and against torch's own ways."""

from __future__ import annotations

from functools import partial

import numpy as np
import numpy.typing as npt
from _timing import Report, arguments, in_threads, milliseconds, normal, reset_peak, resident
from nnopt_plugins.prune.bracket import Finder
from nnopt_plugins.prune.criteria import Magnitude
from nnopt_plugins.prune.edits import CutEdit
from nnopt_plugins.prune.granularities import WeightGranularity
from nnopt_plugins.prune.parts import Desk, sweep
from nnopt_plugins.prune.source import Item, Scorer, Source, key_for

from nnopt_cli import MemoryWeight
from nnopt_cli.formats.dtypes import dtype_named

STAGES = [(64, 64, 3), (256, 128, 4), (512, 256, 6), (1024, 512, 3)]  # inputs, width, bottleneck blocks
Words = npt.NDArray[np.generic]


def resnet50() -> list[tuple[int, ...]]:
    """Shapes of its convolutions and its linear layer (He et al., arXiv:1512.03385, table 1)."""
    shapes: list[tuple[int, ...]] = [(64, 3, 7, 7)]
    for inputs, width, blocks in STAGES:
        shapes.append((4 * width, inputs, 1, 1))
        for block in range(blocks):
            first = inputs if block == 0 else 4 * width
            shapes += [(width, first, 1, 1), (width, width, 3, 3), (4 * width, width, 1, 1)]
    return [*shapes, (1000, 2048)]


def prune(tensors: list[Words], dtype: str, sparsity: float, threads: int) -> None:
    """What the pass does to weights in memory, and the edit applied in place."""
    weights = [MemoryWeight(str(i), dtype_named(dtype), words) for i, words in enumerate(tensors)]
    items = [Item(weight.name, weight, i) for i, weight in enumerate(weights)]
    grouping, criterion = WeightGranularity(), Magnitude()
    scorer = Scorer(criterion, key_for(criterion, items, grouping), 0, grouping)
    source = Source(items, scorer)
    cut = Finder(source, threads=threads).find(round(sparsity * source.groups))
    desk = Desk()
    edits = [CutEdit(cut, place, item, scorer, grouping, desk) for place, item in enumerate(source.items)]
    flat = [words.reshape(-1) for words in tensors]
    sweep(
        source.parts,
        lambda part: edits[part.tensor](flat[part.tensor][part.start : part.start + part.count], part.start),
        threads,
    )


def against_reading(report: Report, count: int, threads: int, repeat: int) -> None:
    """Select + apply at sparsities that rise, as the applied edit leaves the data pruned."""
    weights = normal(count)
    for dtype, word, bar in (("float32", "<u4", 9.0), ("bfloat16", "<u2", 15.0)):
        words = weights.view("<u4") if word == "<u4" else (weights.view("<u4") >> 16).astype("<u2")
        worked = words.copy()
        typed = worked.view("<f4") if word == "<u4" else worked
        sides = {
            "fresh": partial(np.copyto, worked, words),
            "prune": partial(prune, [typed], dtype, 0.5, threads),
            "read": partial(in_threads, partial(_read, words), count, threads),
        }
        ms = milliseconds(sides, repeat)
        assert np.count_nonzero(worked & (np.iinfo(word).max >> 1)) == count - round(count / 2)
        what = f"{count / 1e6:.0f}M {dtype}: {ms['prune']:.0f} ms, a read pass {ms['read']:.1f} ms"
        report.bar(what, ms["prune"] / ms["read"], bar)


def _read(words: Words, start: int, stop: int) -> None:
    words[start:stop].max()


def memory(report: Report, count: int, threads: int) -> None:
    """Peak resident memory while pruning, beyond what was resident before."""
    weights = normal(count)
    prune([weights[: 1 << 20].copy()], "float32", 0.5, threads)  # warm: code and thread stacks
    reset_peak()
    before = resident()
    prune([weights], "float32", 0.5, threads)
    extra = (resident() - before) / 1e6
    report.bar(f"extra resident memory, {count / 1e6:.0f}M float32", extra, 32.0, unit="MB")


def against_torch(report: Report, count: int, threads: int, repeat: int) -> None:
    """`global_unstructured` on ResNet-50's shapes; `topk` on everything in a row."""
    import torch
    from torch.nn.utils import prune as torch_prune

    torch.set_num_threads(threads)
    tensors = [normal(int(np.prod(shape)), i).reshape(shape) for i, shape in enumerate(resnet50())]
    total = sum(tensor.size for tensor in tensors)
    worked = [tensor.copy() for tensor in tensors]

    def reference() -> None:
        modules = [torch.nn.Module() for _ in tensors]
        for module, tensor in zip(modules, tensors, strict=True):
            module.weight = torch.nn.Parameter(torch.from_numpy(tensor))
        chosen = [(module, "weight") for module in modules]
        torch_prune.global_unstructured(chosen, torch_prune.L1Unstructured, amount=0.5)

    def fresh() -> None:
        for mine, original in zip(worked, tensors, strict=True):
            np.copyto(mine, original)

    sides = {"fresh": fresh, "prune": lambda: prune(worked, "float32", 0.5, threads), "torch": reference}
    ms = milliseconds(sides, max(5, repeat // 2))
    what = f"ResNet-50's {total / 1e6:.1f}M: {ms['prune']:.1f} ms, global_unstructured {ms['torch']:.0f} ms"
    report.bar(what, ms["torch"] / ms["prune"], 60.0, least=True)

    weights = normal(count)
    copy = weights.copy()

    def topk() -> None:
        flat = torch.from_numpy(weights).abs()
        flat.ge(torch.topk(flat, count // 2, largest=False, sorted=False).values.max())

    big = {
        "fresh": lambda: np.copyto(copy, weights),
        "prune": lambda: prune([copy], "float32", 0.5, threads),
    }
    ms = milliseconds({**big, "topk": topk}, 5)
    what = f"{count / 1e6:.0f}M in a row: {ms['prune']:.0f} ms, topk threshold {ms['topk']:.0f} ms"
    report.bar(what, ms["topk"] / ms["prune"], 10.0, least=True)


if __name__ == "__main__":
    given = arguments(__doc__, millions=110)
    report, count = Report(given.check), int(given.millions) * 1_000_000
    memory(report, count, given.threads)
    against_reading(report, count, given.threads, given.repeat)
    against_torch(report, count, given.threads, given.repeat)
    report.finish()
