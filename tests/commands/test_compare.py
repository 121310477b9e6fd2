"""`nnopt compare` on real files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from nnopt_cli.testing import run_command

RESNET = Path(__file__).parents[3] / "shared/data/checkpoints/resnet20-12fca82f.th"


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    torch.manual_seed(0)
    a, b = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    save_file({"fc.weight": torch.randn(8, 8), "fc.bias": torch.randn(8)}, a)
    tensors = load_file(a)
    bar = tensors["fc.weight"].abs().flatten().sort().values[31]
    save_file({**tensors, "fc.weight": tensors["fc.weight"] * (tensors["fc.weight"].abs() > bar)}, b)
    return a, b


def test_a_pruned_file_is_recognised(pair: tuple[Path, Path]) -> None:
    result = run_command("compare", *pair)
    assert result.code == 0, result.stderr
    assert "B is A with 50.0% of its prunable weights set to zero" in " ".join(result.stdout.split())


def test_json_is_exactly_one_document(pair: tuple[Path, Path]) -> None:
    record = run_command("compare", *pair, "--json").json
    rows = {row["name"]: row for row in record["tensors"]}
    assert (rows["fc.bias"]["status"], rows["fc.weight"]["status"]) == ("identical", "changed")
    assert rows["fc.weight"]["zeros_added"] == rows["fc.weight"]["changed"] == 32


def test_the_exit_code_tells_only_when_asked(pair: tuple[Path, Path]) -> None:
    a, b = pair
    assert run_command("compare", a, b).code == 0
    assert run_command("compare", a, b, "--exit-code").code == 1
    assert run_command("compare", a, a, "--exit-code").code == 0


def test_both_containers_of_one_model_are_the_same_model(pair: tuple[Path, Path], tmp_path: Path) -> None:
    other = tmp_path / "a.pt"
    torch.save({"state_dict": {f"module.{k}": v for k, v in load_file(pair[0]).items()}, "epoch": 3}, other)
    result = run_command("compare", pair[0], other, "--exit-code")
    assert result.code == 0, result.stdout
    assert "bit for bit" in result.stdout


@pytest.mark.skipif(not RESNET.exists(), reason="the real checkpoints are not on this machine")
def test_pruning_a_real_checkpoint_and_comparing_it(tmp_path: Path) -> None:
    out = tmp_path / "out.th"
    assert run_command("prune", RESNET, "--sparsity", "0.5", "-o", out).code == 0
    record = run_command("compare", RESNET, out, "--json").json
    rest = "of its prunable weights set to zero; every other weight is bit-identical."
    assert record["verdict"] == f"B is A with 50.0% {rest}"
    prunable = [row for row in record["tensors"] if row["prunable"]]
    assert sum(row["zeros_b"] for row in prunable) == 268_336 // 2
