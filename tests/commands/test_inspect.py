"""`nnopt inspect` on real files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from nnopt_cli import load, save
from nnopt_cli.testing import run_command, run_process, small_file

RESNET = Path(__file__).parents[3] / "shared/data/checkpoints/resnet20-12fca82f.th"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    weight = torch.randn(32, 16)
    weight[:, ::2] = 0
    path = tmp_path / "model.safetensors"
    save_file({"a.weight": weight, "a.bias": torch.ones(32), "b[/x].weight": torch.randn(4, 4)}, path)
    return path


def test_json_is_exactly_one_document_with_torchs_figures(model: Path) -> None:
    result = run_command("inspect", model, "--json")
    assert result.code == 0, result.stderr
    record = result.json
    rows = {row["name"]: row for row in record["tensors"]}
    assert list(rows) == list(load(model).weights)
    weight = load(model).weights["a.weight"].torch()
    assert rows["a.weight"]["zeros"] == int((weight == 0).sum()) == 256
    assert rows["a.weight"]["l2"] == pytest.approx(float(weight.double().norm()))
    assert rows["a.weight"]["patterns"] == ["1:2"]
    assert rows["a.bias"]["reason"] == "1 dimension"
    assert record["bytes"] == model.stat().st_size


def test_the_table_prints_names_as_they_are(model: Path) -> None:
    result = run_command("inspect", model)
    assert result.code == 0, result.stderr
    assert "b[/x].weight" in result.stdout
    assert "1:2" in result.stdout
    assert str(model) in result.stdout.splitlines()[0]


def test_options_reach_the_record(model: Path) -> None:
    found = run_command("inspect", model, "--include", "*.weight", "--sort", "sparsity", "--json").json
    assert [row["name"] for row in found["tensors"]] == ["a.weight", "b[/x].weight"]
    assert found["blake3"] is None
    bare = run_command("inspect", model, "--headers", "--json").json
    assert bare["nonzeros"] is None
    assert run_command("inspect", model, "--sort", "colour").code == 2
    assert run_command("inspect", model, "--include", "c.*").code == 2


def test_the_hash_is_the_one_that_a_save_records_whatever_the_format(tmp_path: Path) -> None:
    source = small_file(tmp_path / "a.safetensors")
    other = tmp_path / "b.pt"
    saved = save(load(source), other)
    hashes = {run_command("inspect", path, "--json").json["blake3"] for path in (source, other)}
    assert hashes == {saved.blake3}


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_text("<html>404</html>")
    assert run_command("inspect", path).code == 3
    assert run_command("inspect", tmp_path / "nowhere.pt").code in (2, 3)


@pytest.mark.skipif(not RESNET.exists(), reason="the real checkpoints are not on this machine")
def test_a_real_checkpoint_as_torch_sees_it() -> None:
    record = run_command("inspect", RESNET, "--json").json
    tensors = torch.load(RESNET, map_location="cpu", weights_only=True)["state_dict"]
    rows = {row["name"]: row for row in record["tensors"]}
    assert {f"module.{name}" for name in rows} == set(tensors)
    for name, row in rows.items():
        tensor = tensors[f"module.{name}"].double()
        assert row["l1"] == pytest.approx(float(tensor.abs().sum()), rel=1e-12)
        assert row["zeros"] == int((tensor == 0).sum())
    assert record["prefix"] == "module."
    assert record["key"] == ["state_dict"]
    assert record["parameters"] == 269_722  # He et al.'s ResNet-20 with option A shortcuts


@pytest.mark.slow
def test_resident_memory_stays_flat_on_a_large_file(tmp_path: Path) -> None:
    peaks = []
    for rows in (1 << 12, 1 << 17):  # 17 MB and 537 MB
        path = tmp_path / f"{rows}.safetensors"
        save_file({f"layer{i}.weight": torch.zeros(rows // 4, 1024) for i in range(4)}, path)
        peaks.append(_peak(path))
    assert peaks[1] < peaks[0] + 40e6


def _peak(path: Path) -> int:
    code = """
import sys
from nnopt_cli.app import main
from nnopt_cli.formats.syscalls import peak_memory
main(sys.argv[1:])
print(peak_memory(), file=sys.stderr)
"""
    command = [sys.executable, "-c", code, "inspect", str(path), "--json"]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stderr)


def test_torch_is_not_imported(model: Path) -> None:
    result = run_process("inspect", model, env={"PYTHONPROFILEIMPORTTIME": "1"})
    assert result.code == 0
    assert "numpy" in result.stderr
    assert not any(line.split("|")[-1].strip() == "torch" for line in result.stderr.splitlines())
