"""Models in memory, and naive references that share no code with what they check."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from nnopt_plugins.prune.criteria import Magnitude
from nnopt_plugins.prune.edits import CutEdit
from nnopt_plugins.prune.granularities import WeightGranularity
from nnopt_plugins.prune.parts import Desk
from nnopt_plugins.prune.source import Item, Scorer, Source, key_for

from nnopt_cli import MemoryWeight, Model, Run, Weight
from nnopt_cli.formats.checkpoint import Container
from nnopt_cli.formats.dtypes import dtype_named

FLOATS = ("float32", "float16", "bfloat16", "float64")


def as_words(values: np.ndarray, dtype: str) -> np.ndarray:
    """Raw words of `dtype`; bfloat16 by cutting float32 off."""
    if dtype == "bfloat16":
        return (np.asarray(values, "<f4").view("<u4") >> 16).astype("<u2")
    with np.errstate(over="ignore"):
        return np.asarray(values, dtype)


def as_float64(words: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == "bfloat16":
        words = (words.astype("<u4") << 16).view("<f4")
    with np.errstate(invalid="ignore"):  # signalling NaN
        return words.astype("<f8")


def memory_model(
    tensors: Mapping[str, np.ndarray | Weight], dtypes: Mapping[str, str] | None = None
) -> Model:
    """Arrays of words (dtype float32 unless `dtypes` says otherwise); a Weight given twice is tied."""
    dtypes = dtypes or {}
    weights = {
        name: value
        if isinstance(value, Weight)
        else MemoryWeight(name, dtype_named(dtypes.get(name, value.dtype.name)), value)
        for name, value in tensors.items()
    }
    return Model(weights, Container(Path("model.pt"), "torch", ()))


def pruned_words(model: Model) -> dict[str, np.ndarray]:
    return {name: weight.words() for name, weight in model.weights.items()}


def quiet(threads: int = 1, **rest: object) -> Run:
    return Run(threads=threads, **rest)  # type: ignore[arg-type]


def random_tensors(
    seed: int, shapes: Sequence[tuple[int, ...]], dtypes: Sequence[str], palette: int = 0, zeros: float = 0.0
) -> list[np.ndarray]:
    """Words; `palette` > 0 draws from so few values that most are ties; zeros of both signs."""
    rng = np.random.default_rng(seed)
    out = []
    for shape, dtype in zip(shapes, dtypes, strict=True):
        values = rng.integers(-palette, palette + 1, shape) / 4 if palette else rng.standard_normal(shape)
        values = np.where(rng.random(shape) < zeros, np.copysign(0.0, rng.standard_normal(shape)), values)
        out.append(as_words(values, dtype))
    return out


def naive(tensors: Sequence[np.ndarray], dtypes: Sequence[str], k: int) -> list[np.ndarray]:
    """Which elements are zero after pruning: a full stable sort of |w| in float64; non-finite ones stay."""
    flat = np.concatenate(
        [np.abs(as_float64(w, d)).reshape(-1) for w, d in zip(tensors, dtypes, strict=True)]
    )
    rank = np.where(np.isfinite(flat), flat, np.inf)
    gone = flat == 0
    order = np.argsort(rank, kind="stable")
    order = order[np.isfinite(flat[order])]
    gone[order[:k]] = True
    ends = np.cumsum([tensor.size for tensor in tensors])[:-1]
    return [part.reshape(t.shape) for part, t in zip(np.split(gone, ends), tensors, strict=True)]


def check(before: Sequence[np.ndarray], after: Sequence[np.ndarray], gone: Sequence[np.ndarray]) -> None:
    """`after` is zero exactly where `gone` says; elsewhere every bit is as before."""
    for old, new, zero in zip(before, after, gone, strict=True):
        bits = f"<u{old.itemsize}"
        magnitude = np.iinfo(bits).max >> 1
        assert np.array_equal((new.view(bits) & magnitude) == 0, zero)
        assert np.array_equal(new.view(bits)[~zero], old.view(bits)[~zero])


def source_of(tensors: Sequence[np.ndarray], dtypes: Sequence[str], chunk_bytes: int = 1 << 19) -> Source:
    """The competition of all `tensors`, by magnitude, each weight on its own."""
    items = [
        Item(f"t{i}", MemoryWeight(f"t{i}", dtype_named(dtype), words), i)
        for i, (words, dtype) in enumerate(zip(tensors, dtypes, strict=True))
    ]
    grouping = WeightGranularity()
    scorer = Scorer(Magnitude(), key_for(Magnitude(), items, grouping), 0, grouping)
    return Source(items, scorer, chunk_bytes)


def edited(source: Source, cut, chunk: int = 1 << 30) -> list[np.ndarray]:  # type: ignore[no-untyped-def]
    """All tensors after the cut, edited in chunks of `chunk` elements."""
    out, desk = [], Desk()
    for place, item in enumerate(source.items):
        words = item.weight.words()
        flat = words.reshape(-1)
        edit = CutEdit(cut, place, item, source.scorer, WeightGranularity(), desk)
        for start in range(0, len(flat), chunk):
            edit(flat[start : start + chunk], start)
        out.append(words)
    return out
