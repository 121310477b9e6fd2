"""`nnopt inspect --cost`, against PyTorch's own counter."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import nnopt_cli
from nnopt_cli.testing import run_command


class Mixed(nn.Module):
    """Grouped, strided and transposed convolutions, attention, and linear maps."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.depth = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.up = nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.mix = nn.Linear(16, 48)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(self.depth(self.stem(x)).relu()).flatten(2)[..., :16]
        q, k, v = self.mix(x).chunk(3, -1)
        y: Tensor = self.head(torch.softmax(q @ k.transpose(-1, -2), -1) @ v)
        return y


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("cost")
    net = Mixed()
    torch.save(net.state_dict(), folder / "net.pt")
    nnopt_cli.save(nnopt_cli.load(folder / "net.pt", net, inputs="3x16x16"), folder / "net.pt2")
    return folder / "net.pt2"


def test_figures_are_those_of_pytorchs_counter(model: Path) -> None:
    result = run_command("inspect", model, "--cost", "--json")
    assert result.code == 0, result.stderr
    cost = result.json["cost"]
    net = Mixed().eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(torch.randn(1, 3, 16, 16))
    assert cost["macs"] * 2 == counter.get_total_flops()
    assert cost["parameters"] == sum(p.numel() for p in net.parameters())
    assert cost["macs"] == sum(layer["macs"] for layer in cost["layers"])
    rows = {layer["layer"]: layer for layer in cost["layers"]}
    assert rows["stem.weight"]["parameters"] == 8 * 3 * 9 + 8
    assert rows["stem.weight"]["macs"] == 8 * 8 * 8 * 3 * 9
    assert rows["stem.weight"]["output_bytes"] == 8 * 8 * 8 * 4
    assert rows["depth.weight"]["parameters"] == 8 * 9
    assert sum(layer["operator"] == "matmul" for layer in cost["layers"]) == 2


@pytest.mark.parametrize("width", [80, 140])
def test_the_table(model: Path, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    result = run_command("inspect", model, "--cost")
    assert "Cost of one sample" in result.stdout
    assert "depth.weight" in result.stdout


def test_it_needs_a_graph(model: Path) -> None:
    result = run_command("inspect", model.with_name("net.pt"), "--cost")
    assert result.code == 1
    assert "--arch" in result.stderr
    assert run_command("inspect", model.with_name("net.pt"), "--json").json["cost"] is None
