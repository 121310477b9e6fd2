"""What the writer's tests share: random weights of any type, and a write with its defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from nnopt_cli.formats.checkpoint import Checkpoint, Container
from nnopt_cli.formats.dtypes import DTYPES
from nnopt_cli.formats.weight import MemoryWeight, Weight
from nnopt_cli.formats.write import Written, write
from nnopt_cli.run import Run

NOTE = {"nnopt.provenance": '{"steps": ["prune"]}'}


def weight(name: str, dtype: str = "float32", shape: tuple[int, ...] = (3, 4), seed: int = 0) -> MemoryWeight:
    """A weight whose bits are random (bool: 0 and 1), one in four elements zero."""
    kind = DTYPES[dtype]
    rng = np.random.default_rng((seed, len(shape)))
    count = int(np.prod(shape))
    raw = rng.integers(0, 2 if dtype == "bool" else 256, (count, kind.itemsize), dtype=np.uint8)
    raw[rng.random(count) < 0.25] = 0
    return MemoryWeight(name, kind, raw.reshape(-1).view(kind.word).reshape(shape))


def checkpoint(weights: dict[str, Weight], **container: Any) -> Checkpoint:
    """As if it had been read from `input.pt`, or as `container` says."""
    settings: dict[str, Any] = {"path": Path("input.pt"), "format": "torch", "files": (Path("input.pt"),)}
    return Checkpoint(weights, Container(**{**settings, **container}))


def save(source: Checkpoint, path: Path | None, *, threads: int = 2, force: bool = False) -> Written:
    """Write with a small record."""
    return write(source, path, record=lambda tallies: NOTE, run=Run(threads=threads), force=force)


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two tensors agree in type, shape and every bit."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    flat = [t.detach().contiguous().reshape(-1) for t in (a, b)]
    return not a.numel() or torch.equal(*(t.view(torch.uint8) for t in flat))


class Keep:
    """An edit that sets to zero every element whose flat index is not a multiple of `step`."""

    def __init__(self, step: int, unit: int = 1) -> None:
        self.step = step
        self.unit = unit

    def __call__(self, words: Any, start: int) -> None:
        words[(start + np.arange(len(words))) % self.step != 0] = 0
