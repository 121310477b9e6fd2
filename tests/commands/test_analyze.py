"""`nnopt analyze`: dead channels cost nothing, live ones do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import nnopt_cli
from nnopt_cli.testing import run_command


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A network whose second hidden layer is dead but for two units, and labels that it gets right."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 3))
    x = torch.randn(60, 6)
    with torch.no_grad():
        net[2].weight[2:] = 0
        net[2].bias[2:] = 0
        net[2].weight[:2] *= 10
        net[2].bias[:2] = 3
        net[4].bias -= net(x).mean(0)
        np.savez(tmp_path / "data.npz", x=x.numpy(), y=net(x).argmax(1).numpy())
    torch.save(net.state_dict(), tmp_path / "net.pt")
    nnopt_cli.save(nnopt_cli.load(tmp_path / "net.pt", net, inputs="6"), tmp_path / "net.pt2")
    return tmp_path


def test_what_each_group_is_worth(folder: Path) -> None:
    result = run_command("analyze", folder / "net.pt2", "--data", folder / "data.npz", "--json")
    assert result.code == 0, result.stderr
    record = result.json
    assert record["metric"] == "accuracy"
    assert record["dense"] == 1
    rows = {group["layer"]: group for group in record["groups"]}
    assert {name: group["units"] for name, group in rows.items()} == {"0.weight": 8, "2.weight": 12}
    assert rows["2.weight"]["metric"] == [1, 1, 1], "9 of 12 are dead or nearly so"
    assert rows["2.weight"]["loses"] == 0
    assert rows["0.weight"]["loses"] > 0
    assert rows["0.weight"]["loses"] == 1 - min(rows["0.weight"]["metric"])


def test_the_plot_and_other_criteria(folder: Path) -> None:
    more = ["--ratios", "0.5", "--criterion", "taylor"]
    result = run_command("analyze", folder / "net.pt2", "--data", folder / "data.npz", *more)
    assert result.code == 0, result.stderr
    assert "50% gone" in result.stdout
    assert "0.weight" in result.stdout


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [([], 2, "--data"), (["--data", "data.npz", "--ratios", "1.5"], 2, "between 0 and 1")],
)
def test_what_does_not_fit(
    folder: Path, more: list[str], code: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    result = run_command("analyze", "net.pt2", *more)
    assert result.code == code
    assert said in result.stderr
