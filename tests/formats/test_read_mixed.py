"""Checkpoints whose weights lie beside other things, without an entry of their own."""

from __future__ import annotations

import pickle

import pytest
import torch

from nnopt_cli.errors import UnreadableError
from nnopt_cli.formats.read import read
from nnopt_cli.testing import run_command

W = torch.arange(8.0).reshape(2, 4)


def opened(tmp_path, content):
    path = tmp_path / "m.pt"
    torch.save(content, path)
    return read(path)


@pytest.mark.parametrize(
    "beside",
    [
        {"epoch": 3, "lr": 0.1, "name": "net", "history": [1.0], "best": None},
        {f"fc{i}._extra_state": {"scale": i} for i in range(4)},
        {
            "rng": torch.zeros(8, dtype=torch.uint8),
            "optimizer": {"state": {}, "param_groups": []},
            "a": 1,
            "b": 2,
        },
    ],
)
def test_a_flat_checkpoint_is_read_and_keeps_what_lies_beside(tmp_path, beside):
    checkpoint = opened(tmp_path, {"fc.weight": W, "fc.bias": W[0].clone(), **beside})
    assert {"fc.weight", "fc.bias"} <= set(checkpoint.weights)
    assert run_command("prune", tmp_path / "m.pt", "-s", "0.5").code == 0
    after = torch.load(tmp_path / "m.pruned.pt", weights_only=True)
    kept = {key: value for key, value in beside.items() if key != "optimizer"}
    assert {key: after[key] for key in kept if key != "rng"} == {k: v for k, v in kept.items() if k != "rng"}
    assert int((after["fc.weight"] == 0).sum()) == 4


def test_a_proper_state_dict_goes_before_a_loose_one(tmp_path):
    loose = {"w": W, "epoch": 1, "lr": 0.1, "note": "x"}
    assert set(opened(tmp_path, {**loose, "state_dict": {"a.weight": W}}).weights) == {"a.weight"}


def test_what_holds_no_weights_is_still_refused(tmp_path):
    with pytest.raises(UnreadableError, match="holds no model"):
        opened(tmp_path, {"epoch": 1, "note": "x", "history": [1.0]})
    (tmp_path / "p.pkl").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(UnreadableError, match="holds no model"):
        read(tmp_path / "p.pkl")
