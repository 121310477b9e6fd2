"""The Fisher-weighted mean against the closed form of linear regression."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from nnopt_plugins.ensemble.informed import Fisher
from torch import Tensor, nn

import nnopt_cli
from nnopt_cli import DataOptions, Members, Model, Run
from nnopt_cli.plugin.manager import Wanted, load_plugins

REGISTRY = load_plugins(Wanted(allowed=frozenset()))


def test_linear_regression(tmp_path: Path) -> None:
    torch.manual_seed(0)
    x, y = torch.randn(24, 5) * torch.tensor([1.0, 0.1, 2.0, 0.5, 3.0]), torch.randn(24)
    torch.save({"x": x, "y": y}, tmp_path / "data.pt")
    models = [opened(tmp_path, nn.Linear(5, 1, bias=False), name) for name in "ab"]
    run = Run(threads=1, registry=REGISTRY)
    values: dict[str, Any] = {"data": str(tmp_path / "data.pt"), "loss": "mse"}
    options = DataOptions.model_validate(values, context={"registry": REGISTRY, "allow_code": True})
    data = options.open(run, models[0])

    fused = Fisher(samples=24).fuse(Members(tuple(models), data=data), run)

    weights = [model.weights["weight"].torch().double() for model in models]
    fishers = [squared_slopes(weight, x.double(), y.double()) for weight in weights]
    want = sum(f * w for f, w in zip(fishers, weights, strict=True)) / sum(fishers)
    torch.testing.assert_close(fused.weights["weight"].torch().double(), want, rtol=1e-5, atol=1e-7)
    assert not torch.allclose(want, (weights[0] + weights[1]) / 2, atol=1e-3)


def squared_slopes(weight: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """The mean over samples of the square of d (wx - y)² / dw = 2 (wx - y) x."""
    return (2 * (x @ weight.T - y[:, None]) * x).square().mean(0, keepdim=True)


def opened(folder: Path, net: nn.Module, name: str) -> Model:
    path = folder / f"{name}.pt"
    torch.save(net.state_dict(), path)
    return nnopt_cli.load(path, net, inputs="5")
