"""A small network with norm and dropout, data that it can learn, and files of both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from nnopt_cli import Run
from nnopt_cli.plugin.manager import Wanted, load_plugins
from nnopt_cli.testing import Result, run_command

torch.set_num_threads(1)
ARCH = f"{Path(__file__)}:small"


class Small(nn.Module):
    """A convolution, a norm, dropout, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.drop = nn.Dropout(0.1)
        self.head = nn.Linear(8, 3)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        found = torch.relu(self.norm(self.conv(image)))
        return self.head(self.drop(found.mean((2, 3))))


def small() -> Small:
    """With seeded weights."""
    torch.manual_seed(0)
    return Small()


def write_data(folder: Path, count: int = 60, seed: int = 0, name: str = "data.npz") -> Path:
    """Stripes across, stripes down, and noise: 1 x 6 x 6."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, 3, count)
    images = draw.normal(0, 0.3, (count, 1, 6, 6)).astype(np.float32)
    wave = np.array([1, -1] * 3, np.float32)
    images[labels == 0] += wave
    images[labels == 1] += wave[:, None]
    np.savez(folder / name, x=images, y=labels.astype(np.int64))
    return folder / name


def write_model(folder: Path, name: str = "model.pt") -> Path:
    """Its weights."""
    torch.save(small().state_dict(), folder / name)
    return folder / name


def write_program(folder: Path, *, sparsity: float = 0.0) -> Path:
    """The same as a `.pt2`, which says nothing of the source."""
    weights = write_model(folder)
    if sparsity:
        done = run_command("prune", weights, "-s", sparsity, "-o", folder / "sparse.pt", "-q", "--force")
        assert done.code == 0, done.stderr
        weights = folder / "sparse.pt"
    made = folder / "model.pt2"
    done = run_command("convert", weights, "--arch", ARCH, "--input", "1x6x6", "-o", made, "-q", "--force")
    assert done.code == 0, done.stderr
    return made


def finetune(model: Path | None, *args: object) -> Result:
    """The command with one thread and small batches."""
    named = [] if model is None else [model]
    return run_command("finetune", *named, "--threads", 1, "--batch-size", 16, *args)


def tuned(model: Path, *args: object) -> dict[str, Any]:
    """The record of a run that must succeed."""
    done = finetune(model, *args, "--json", "--force")
    assert done.code == 0, done.stderr
    return dict(done.json)


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a model file."""
    from nnopt_cli import load

    return {name: weight.torch() for name, weight in load(path).weights.items()}


def same(one: Path, other: Path) -> bool:
    """Whether two model files hold the same bits."""
    a, b = weights_of(one), weights_of(other)
    return a.keys() == b.keys() and all(a[name].equal(b[name]) for name in a)


def run(**given: Any) -> Run:
    """With the built-in components."""
    return Run(threads=1, registry=load_plugins(Wanted(allowed=frozenset())), **given)
