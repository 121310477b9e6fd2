"""`nnopt bench`: what runs, what is skipped and why, and that ratios are right."""

from __future__ import annotations

import re
import time
from itertools import groupby
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import nnopt_cli
from nnopt_cli.graph.backends import Setting, is_2_4, prepare
from nnopt_cli.graph.onnx_export import to_onnx
from nnopt_cli.graph.timing import interleaved
from nnopt_cli.testing import run_command

CODE = """
from torch import nn
def build(width: int = 32):
    return nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, 4, 3))
"""


def build(width: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, 4, 3))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`wide.pt2`, `thin.pt2`, `thin.onnx`, and `wide.pt` with its source."""
    torch.set_num_threads(1)
    home = tmp_path_factory.mktemp("bench")
    (home / "net.py").write_text(CODE)
    for name, width in (("wide", 128), ("thin", 8)):
        net = build(width)
        torch.save(net.state_dict(), home / f"{name}.pt")
        model = nnopt_cli.load(home / f"{name}.pt", net, inputs="3x24x24")
        nnopt_cli.save(model, home / f"{name}.pt2")
    to_onnx(nnopt_cli.load(home / "thin.pt2").program(), home / "thin.onnx")
    return home


def test_models_side_by_side(folder: Path) -> None:
    files = [folder / "wide.pt2", folder / "thin.pt2", folder / "thin.onnx"]
    result = run_command("bench", *files, "--batch", "3", "--threads", "1", "--seconds", "0.2", "--json")
    assert result.code == 0, result.stderr
    record = result.json
    rows = {(row["model"], row["backend"]): row for row in record["timings"]}
    assert set(rows) == {
        *((f"{name}.pt2", backend) for name in ("wide", "thin") for backend in ("eager", "onnx")),
        ("thin.onnx", "onnx"),
    }
    assert [(row["model"], row["backend"]) for row in record["skipped"]] == [("thin.onnx", "eager")]
    for row in rows.values():
        assert row["batch"] == 3
        assert row["low"] <= row["median"] <= row["high"]
        assert row["throughput"] == pytest.approx(3 / row["median"])
    for backend in ("eager", "onnx"):
        wide, thin = rows["wide.pt2", backend], rows["thin.pt2", backend]
        assert wide["ratio"] == 1
        assert thin["ratio"] == pytest.approx(wide["median"] / thin["median"])
        assert thin["ratio"] > 1  # ten times less work: even a busy machine shows it
    # weights, and at least the hidden activation of a pass
    held = sum(p.numel() for p in build(128).parameters()) * 4 + 3 * 128 * 24 * 24 * 4
    assert held <= rows["wide.pt2", "eager"]["peak_bytes"] < 6 * held
    assert rows["thin.pt2", "eager"]["peak_bytes"] < held / 4


@pytest.mark.parametrize("width", [80, 140])
def test_it_fits_the_terminal(folder: Path, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    more = ["--backend", "eager", "--seconds", "0.05", "--sparse-kernels"]
    result = run_command("bench", folder / "wide.pt2", folder / "thin.pt2", *more)
    assert result.code == 0, result.stderr
    plain = re.sub("\x1b\\[[0-9;]*m", "", result.stdout)
    assert max(map(len, plain.splitlines())) <= width
    assert "sparse kernels need an NVIDIA GPU" in " ".join(plain.split())


def test_weights_with_their_source_and_a_graph_in_one_command(folder: Path) -> None:
    arch = ["--arch", f"{folder / 'net.py'}:build", "--arch-arg", "width=128", "--input", "3x24x24"]
    files = [folder / "wide.pt", folder / "thin.pt2", folder / "thin.onnx"]
    result = run_command("bench", *files, *arch[:4], "--backend", "eager", "--json", "--seconds", "0.05")
    assert result.code == 1
    assert "--input" in result.stderr
    result = run_command("bench", *files, *arch, "--backend", "eager", "--json", "--seconds", "0.05")
    assert result.code == 0, result.stderr
    assert [row["model"] for row in result.json["timings"]] == ["wide.pt", "thin.pt2"]


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["thin.pt2", "--backend", "tensorrt"], 2, "eager, compiled, onnx"),
        (["thin.onnx", "--backend", "eager"], 1, "runs in ONNX Runtime only"),
        (["thin.onnx", "--backend", "onnx", "--input", "y=float32[1,3,24,24]"], 1, "no input 'y'"),
        (["thin.pt"], 1, "--arch"),
        (["none.pt2"], 3, "none.pt2"),
    ],
)
def test_what_cannot_be_measured(folder: Path, args: list[str], code: int, said: str) -> None:
    result = run_command("bench", folder / args[0], *args[1:])
    assert result.code == code
    assert said in result.stderr


def test_a_type_of_its_own(folder: Path) -> None:
    model = nnopt_cli.load(folder / "thin.pt2").program()
    ready = prepare(model, "eager", Setting(2, dtype=torch.bfloat16), folder)
    assert ready.call().dtype == torch.bfloat16
    assert ready.batch == 2


def test_calls_are_interleaved_and_the_time_is_kept() -> None:
    order: list[int] = []

    def call(number: int) -> None:
        order.append(number)
        time.sleep(0.001 if number == 1 else 0.03)  # far apart: the machine may be busy

    start = time.perf_counter()
    first, second = interleaved([lambda: call(1), lambda: call(2)], seconds=0.3)
    assert time.perf_counter() - start < 10
    turns = [number for number, _ in groupby(order)]
    assert turns[:6] == [1, 2, 1, 2, 1, 2]  # neighbours in time
    assert second.median > first.median
    assert first.runs > second.runs >= 7  # a turn is as long for both


def test_which_weights_are_2_of_4() -> None:
    weight = torch.zeros(4, 8)
    weight[:, ::2] = 1
    assert is_2_4(weight)
    weight[3, 1] = 1
    assert not is_2_4(weight)
    assert not is_2_4(torch.zeros(4, 6))
    assert not is_2_4(torch.zeros(4))


class Plain(nn.Module):
    """A linear map wide enough for the kernels."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(256, 256)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.map(x)
        return y


@pytest.mark.gpu
def test_sparse_kernels_compute_the_same(tmp_path: Path) -> None:
    net = Plain()
    with torch.no_grad():
        net.map.weight.view(256, -1, 4)[..., 2:] = 0
    program = torch.export.export(net, (torch.randn(64, 256),))
    setting = Setting(64, "cuda", dtype=torch.float16)
    dense, sparse = (prepare(program, kind, setting, tmp_path) for kind in ("eager", "sparse"))  # type: ignore[arg-type]
    assert sparse.notes == ("1 of 1 weights of linear maps run on sparse 2:4 kernels.",)
    assert torch.allclose(dense.call(), sparse.call(), atol=1e-2)


@pytest.mark.slow
def test_compiled(folder: Path) -> None:
    result = run_command("bench", folder / "thin.pt2", "--backend", "compiled", "--seconds", "0.1", "--json")
    assert result.code == 0, result.stderr
    assert result.json["timings"][0]["backend"] == "compiled"
