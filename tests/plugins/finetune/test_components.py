"""Every component of training works in a real run, and what one remembers goes through a checkpoint."""

from __future__ import annotations

import shutil

import pytest
import torch
from finetune_models import ARCH, finetune, same, tuned, weights_of, write_data, write_model, write_program
from test_interrupted import stop_after

from nnopt_cli.plugin.manager import Wanted, load_plugins
from nnopt_cli.testing import run_process

REGISTRY = load_plugins(Wanted(allowed=frozenset()))
OPTIMIZERS = (*REGISTRY.names("optimizer"), "code:torch.optim:Adafactor", "code:torch.optim:LBFGS")


def go_on(tmp_path, monkeypatch, *options):
    """Whether a training that is stopped in its third step ends as one that is not."""
    made, data = write_program(tmp_path), write_data(tmp_path)
    args = ("--data", data, "--val-split", "0.3", "--epochs", 4, "--batch-size", 32, *options)
    tuned(made, *args, "-o", tmp_path / "whole.pt2")
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        assert finetune(made, *args, "-o", tmp_path / "out.pt2").code == 130
    tuned(made, *args, "-o", tmp_path / "out.pt2", "--resume", tmp_path / "out.pt2.checkpoint")
    return same(tmp_path / "out.pt2", tmp_path / "whole.pt2")


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_optimizers_go_on_bit_for_bit(tmp_path, monkeypatch, optimizer):
    assert go_on(tmp_path, monkeypatch, "--optimizer", optimizer)


@pytest.mark.slow
@pytest.mark.parametrize("schedule", REGISTRY.names("learning-rate-schedule"))
def test_schedules_go_on_bit_for_bit(tmp_path, monkeypatch, schedule):
    assert go_on(tmp_path, monkeypatch, "--schedule", schedule, "--warmup", "1")


def test_regularizers_together_go_on_bit_for_bit(tmp_path, monkeypatch):
    every = [part for name in REGISTRY.names("regularizer") for part in ("--regularizer", name)]
    assert go_on(tmp_path, monkeypatch, "--optimizer", "nadam", *every)


@pytest.mark.parametrize("program", [False, True])
def test_group_lasso_pulls_whole_channels_to_zero_on_both_rungs(tmp_path, program):
    made = write_program(tmp_path) if program else write_model(tmp_path)
    out = tmp_path / ("out.pt2" if program else "out.pt")
    arch = () if program else ("--arch", ARCH)
    options = ("--regularizer", "group-lasso:weight=0.05", "--epochs", 15, "--lr", 0.05)
    tuned(made, *arch, "--data", write_data(tmp_path), *options, "-o", out)
    before, after = weights_of(made), weights_of(out)

    def smallest(weights):
        return weights["conv.weight"].flatten(1).norm(dim=1).min().item()

    assert smallest(after) < 0.1 * smallest(before)


def test_vectors_that_are_no_weights_are_not_drawn(tmp_path):
    """A weight-normed network whose sizes became zero would never learn."""
    (tmp_path / "normed.py").write_text(
        "import torch\n"
        "from torch import nn\n"
        "from torch.nn.utils.parametrizations import weight_norm\n\n"
        "def build():\n"
        "    torch.manual_seed(0)\n"
        "    first, last = (weight_norm(nn.Linear(*sizes)) for sizes in ((36, 8), (8, 3)))\n"
        "    return nn.Sequential(nn.Flatten(), first, nn.ReLU(), last)\n"
    )
    out = tmp_path / "out.pt"
    arch = ("--arch", f"{tmp_path / 'normed.py'}:build")
    tuned(None, *arch, "--data", write_data(tmp_path), "--init", "he-normal", "--epochs", 1, "-o", out)
    sizes = [w for name, w in weights_of(out).items() if name.endswith("original0")]
    assert len(sizes) == 2
    assert all(torch.all(size.abs() > 0.1) for size in sizes)


def test_data_that_hold_nan_are_suspected_before_the_rate(tmp_path):
    import numpy as np

    data = write_data(tmp_path)
    held = dict(np.load(data))
    held["x"][::3] = np.nan
    np.savez(data, **held)
    done = finetune(write_program(tmp_path), "--data", data)
    assert done.code == 1
    assert "NaN and huge values in the data" in " ".join(done.stderr.split())


def test_a_training_that_spoils_the_model_says_so(tmp_path):
    made, data = write_program(tmp_path), write_data(tmp_path)
    good = tmp_path / "good.pt2"
    tuned(made, "--data", data, "--epochs", 12, "--lr", 0.05, "-o", good)
    found = tuned(
        good, "--data", data, "--epochs", 1, "--lr", 1e4, "--optimizer", "sgd", "-o", tmp_path / "bad.pt2"
    )
    assert any("made it worse" in note for note in found["notes"])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of PyTorch's own compiler
@pytest.mark.parametrize("program", [False, True])
def test_a_compiled_network_learns_the_same(tmp_path, program):
    if not any(map(shutil.which, ("g++", "clang++"))):
        pytest.skip("needs a C++ compiler")
    made = write_program(tmp_path) if program else write_model(tmp_path)
    args = (*(() if program else ("--arch", ARCH)), "--data", write_data(tmp_path), "--epochs", 2)
    args = (*args, "--regularizer", "dropout:rate=0", "--lr", 0.01)
    end = made.suffix
    tuned(made, *args, "--compile", "-o", tmp_path / f"compiled{end}")
    tuned(made, *args, "-o", tmp_path / f"plain{end}")
    one, other = weights_of(tmp_path / f"compiled{end}"), weights_of(tmp_path / f"plain{end}")
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_without_a_compiler_compiling_says_so(tmp_path):
    made, data, out = write_program(tmp_path), write_data(tmp_path), tmp_path / "out.pt2"
    lacking = {"CXX": str(tmp_path / "none"), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    done = run_process("finetune", made, "--data", data, "--epochs", 1, "--compile", "-o", out, env=lacking)
    assert done.code == 1
    said = " ".join(done.stderr.split())
    assert "--compile: the network cannot be compiled here" in said
    assert "C++ compiler" in said
    assert not out.exists()
