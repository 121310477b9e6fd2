"""What a hostile or careless user found: each of these went wrong once."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from nnopt_cli import UnreadableError, load
from nnopt_cli.formats.read import read
from nnopt_cli.testing import run_command

CRITERION = """
import numpy as np
from nnopt_cli import Criterion


class InPlace(Criterion):
    \"\"\"Writes where it may only read.\"\"\"

    def score(self, values, where):
        np.abs(values, out=values)
        return values
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    save_file({"a.weight": np.random.default_rng(0).normal(size=(24, 10)).astype("f4")}, path)
    return path


@pytest.mark.parametrize("size", ["1000000x1", "4x9223372036854775807", "99999999999999999999x4"])
def test_a_block_larger_than_the_matrix_is_cut_down_to_it(model: Path, size: str) -> None:
    start = time.process_time()
    found = run_command("prune", str(model), "-s", "0.5", "--granularity", size, "--force")
    assert found.code == 0, found.stderr
    assert time.process_time() - start < 5
    rows, columns = (min(int(n), k) for n, k in zip(size.split("x"), (24, 10), strict=True))
    clamped = run_command(
        "prune",
        str(model),
        "-s",
        "0.5",
        "--granularity",
        f"{rows}x{columns}",
        "-o",
        str(model.parent / "b.safetensors"),
    )
    assert clamped.code == 0
    a, b = (
        load(model.parent / name).weights["a.weight"].words()
        for name in ("model.pruned.safetensors", "b.safetensors")
    )
    assert np.array_equal(a, b)


@pytest.mark.parametrize(
    "more", [("-s", "0.5"), ("--granularity", "2:4"), ("-s", "0.5", "--granularity", "2x2")]
)
def test_a_criterion_cannot_change_the_weights(model: Path, more: tuple[str, ...]) -> None:
    code = model.parent / "mine.py"
    code.write_text(CRITERION)
    found = run_command("prune", str(model), *more, "--criterion", f"code:{code}:InPlace")
    assert found.code == 1
    assert not (model.parent / "model.pruned.safetensors").exists()


def test_the_entry_called_model_is_the_model_beside_loose_tensors(tmp_path: Path) -> None:
    net = torch.nn.Linear(8, 8).state_dict()
    torch.save(
        {"model": net, "anchors": torch.ones(9, 2), "mean": torch.ones(3), "std": torch.ones(3)},
        tmp_path / "m.pt",
    )
    assert list(read(tmp_path / "m.pt").weights) == ["weight", "bias"]


def test_force_keeps_its_hands_off_a_folder_with_other_files(model: Path) -> None:
    out = model.parent / "out"
    assert run_command("prune", str(model), "-s", "0.5", "-o", str(out)).code == 0
    assert run_command("prune", str(model), "-s", "0.5", "-o", str(out), "--force").code == 0
    (out / "train.py").write_text("mine")
    found = run_command("prune", str(model), "-s", "0.5", "-o", str(out), "--force")
    assert found.code == 1
    assert "train.py" in found.stderr
    assert (out / "train.py").read_text() == "mine"


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    header = b'{"a\\ud800": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}'
    path = tmp_path / "s.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(UnreadableError, match="no text"):
        read(path)
