"""Training that is interrupted, killed, fails or diverges: nothing is lost, and it goes on bit for bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from finetune_models import finetune, same, tuned, weights_of, write_data, write_program
from nnopt_plugins.finetune import saving

from nnopt_cli import NnoptError, load_state, save_state

HARD = (  # everything that has a state of its own
    *("--val-split", "0.4", "--epochs", 3, "--ema", 0.9, "--optimizer", "adam", "--lr", 0.02),
    *("--schedule", "reduce-on-plateau", "--clip", 1.0, "--warmup", "2", "--augment", "flip"),
)


def stop_after(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Ctrl-C arrives in step number `step`."""
    before = saving.Saving.__call__

    def call(self, trainer):
        if trainer.step == step:
            os.kill(os.getpid(), signal.SIGINT)
        before(self, trainer)

    monkeypatch.setattr(saving.Saving, "__call__", call)


@pytest.mark.parametrize("step", [2, 3, 5])
def test_ctrl_c_saves_and_resume_gives_the_same_bits(tmp_path, monkeypatch, step):
    """In the middle of an epoch of three steps, at its very end, and in a later one."""
    made, data = write_program(tmp_path), write_data(tmp_path)
    whole, out = tmp_path / "whole.pt2", tmp_path / "out.pt2"
    tuned(made, "--data", data, *HARD, "-o", whole)
    with monkeypatch.context() as patch:
        stop_after(patch, step)
        done = finetune(made, "--data", data, *HARD, "-o", out)
    kept = tmp_path / "out.pt2.checkpoint"
    assert done.code == 130
    assert f"--resume {kept}" in done.stderr
    assert not out.exists()
    again = finetune(made, "--data", data, *HARD, "-o", out, "--resume", kept, "--json")
    assert again.code == 0, again.stderr
    assert out.read_bytes() == whole.read_bytes()
    assert not kept.exists()


def test_a_checkpoint_is_known_by_any_spelling_and_a_new_run_says_that_it_goes(tmp_path, monkeypatch):
    made, data = write_program(tmp_path), write_data(tmp_path)
    args = ("--data", data, "--epochs", 2, "-o", tmp_path / "out.pt2")
    kept = tmp_path / "out.pt2.checkpoint"
    for expected in (False, True):
        with monkeypatch.context() as patch:
            stop_after(patch, 2)
            done = finetune(made, *args)
        assert done.code == 130
        assert ("--resume would go on with" in " ".join(done.stderr.split())) is expected
    monkeypatch.chdir(tmp_path)
    done = finetune(made, *args, "--resume", kept.name)
    assert done.code == 0, done.stderr
    assert "replaced" not in done.stderr
    assert not kept.exists()


def test_optimizers_without_batches_go_on_too(tmp_path, monkeypatch):
    made, data = write_program(tmp_path), write_data(tmp_path)
    args = ("--data", data, "--epochs", 4, "--optimizer", "lbfgs:iterations=3")
    tuned(made, *args, "-o", tmp_path / "whole.pt2")
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        assert finetune(made, *args, "-o", tmp_path / "out.pt2").code == 130
    tuned(made, *args, "-o", tmp_path / "out.pt2", "--resume", tmp_path / "out.pt2.checkpoint")
    assert same(tmp_path / "out.pt2", tmp_path / "whole.pt2")


def test_a_checkpoint_knows_its_training(tmp_path, monkeypatch):
    made, data = write_program(tmp_path), write_data(tmp_path)
    args = ("--data", data, "--epochs", 3)
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        finetune(made, *args, "--lr", 0.1, "-o", tmp_path / "out.pt2")
    kept = tmp_path / "out.pt2.checkpoint"
    other = finetune(made, *args, "--lr", 0.2, "-o", tmp_path / "out.pt2", "--resume", kept)
    assert other.code == 2
    assert "lr was 0.1, is 0.2" in other.stderr
    for wrong in (made, tmp_path / "absent", data):
        done = finetune(made, *args, "--lr", 0.1, "-o", tmp_path / "out.pt2", "--resume", wrong)
        assert done.code == 3, done.stderr
        assert "error:" in done.stderr


@pytest.mark.slow
def test_killed_it_loses_no_more_than_the_interval(tmp_path):
    made, data = write_program(tmp_path), write_data(tmp_path, 400)
    args = ["--data", data, "--epochs", 40, "--checkpoint-every", 5, "--threads", 1, "--batch-size", 4]
    tuned(made, *args, "-o", tmp_path / "whole.pt2")
    kept = tmp_path / "out.pt2.checkpoint"
    command = [sys.executable, "-m", "nnopt_cli", "finetune", made, *args, "-o", tmp_path / "out.pt2"]
    with subprocess.Popen([str(each) for each in command], stdout=-3, stderr=-3) as child:
        while not kept.exists() and child.poll() is None:
            time.sleep(0.01)
        time.sleep(0.3)
        child.kill()
    state = load_state(kept)
    assert state["trainer"]["place"][2] % 5 == 0
    tuned(made, *args, "-o", tmp_path / "out.pt2", "--resume", kept)
    assert (tmp_path / "out.pt2").read_bytes() == (tmp_path / "whole.pt2").read_bytes()


def test_a_loss_that_is_no_number_stops_and_keeps_what_was_good(tmp_path):
    made, data = write_program(tmp_path), write_data(tmp_path)
    code = tmp_path / "own.py"
    code.write_text(
        "from nnopt_cli import Loss\n"
        "import torch\n"
        "calls = []\n"
        "class Bad(Loss):\n"
        "    def __call__(self, outputs, target):\n"
        "        if outputs.requires_grad: calls.append(1)\n"
        "        found = torch.nn.functional.cross_entropy(outputs, target)\n"
        "        return found / 0 if len(calls) == 6 and outputs.requires_grad else found\n"
    )
    args = ("--data", data, "--loss", f"code:{code}:Bad", "--epochs", 3, "--lr", 0.01)
    done = finetune(made, *args, "-o", tmp_path / "out.pt2")
    assert done.code == 1
    assert "the loss is inf in step 6 (epoch 2), at a learning rate of" in done.stderr
    assert "--lr 0.001" in done.stderr
    good = tmp_path / "out.last-good.pt2"
    assert str(good) in done.stderr
    assert not (tmp_path / "out.pt2").exists()
    tuned(made, "--data", data, "--epochs", 3, "--lr", 0.01, "-o", tmp_path / "other.pt2")
    assert all(bool(value.isfinite().all()) for value in weights_of(good).values())
    assert not same(good, made)


def test_a_rate_that_diverges_says_what_to_try(tmp_path):
    made, data = write_program(tmp_path), write_data(tmp_path)
    args = ("--data", data, "--optimizer", "sgd", "--lr", 1e30, "--epochs", 2)
    done = finetune(made, *args, "-o", tmp_path / "out.pt2")
    assert done.code == 1
    assert "the loss is" in done.stderr
    assert "--clip 1" in done.stderr
    assert list(tmp_path.glob("out*")) == []


def test_a_full_disk_costs_a_checkpoint_and_not_the_training(tmp_path, monkeypatch):
    made, data = write_program(tmp_path), write_data(tmp_path)

    def full(path, settings, trainer):
        raise NnoptError(f"{path}: the disk is full")

    monkeypatch.setattr("nnopt_plugins.finetune.checkpoint.write", full)
    args = ("--data", data, "--epochs", 1, "--checkpoint-every", 1)
    record = tuned(made, *args, "-o", tmp_path / "out.pt2")
    assert any("could not be saved" in note and "disk is full" in note for note in record["notes"])
    assert (tmp_path / "out.pt2").exists()


def test_an_output_that_cannot_be_written_keeps_the_checkpoint(tmp_path, monkeypatch):
    """The disk fills up between the last checkpoint and the output: training can be gone on with."""
    made, data = write_program(tmp_path), write_data(tmp_path)
    args = ("--data", data, "--epochs", 1, "--checkpoint-every", 1, "-o", tmp_path / "out.pt2")

    def full(*_: object, **__: object):
        raise NnoptError("out.pt2: the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr("nnopt_cli.model.io.save", full)
        done = finetune(made, *args)
    assert done.code == 1
    kept = tmp_path / "out.pt2.checkpoint"
    assert kept.exists()
    tuned(made, *args, "--resume", kept)
    assert (tmp_path / "out.pt2").exists()


def test_nothing_is_written_in_a_dry_run(tmp_path):
    made, data = write_program(tmp_path), write_data(tmp_path)
    before = sorted(tmp_path.iterdir())
    tuned(made, "--data", data, "--epochs", 1, "--checkpoint-every", 1, "--dry-run")
    assert sorted(tmp_path.iterdir()) == before


def test_an_output_that_exists_is_refused_before_training(tmp_path):
    made, data = write_program(tmp_path), write_data(tmp_path)
    (tmp_path / "out.pt2").write_text("mine")
    done = finetune(made, "--data", data, "--epochs", 1000, "-o", tmp_path / "out.pt2")
    assert (done.code, (tmp_path / "out.pt2").read_text()) == (1, "mine")
    assert "already exists" in done.stderr


def test_states_come_back_as_they_were(tmp_path):
    path = tmp_path / "state"
    shared = torch.arange(6.0)
    tree = {
        "a": shared, "b": shared[2:4], "t": (1, 2.5, None), "n": {3: [True, "x"], "$odd": float("inf")},
        "rng": torch.get_rng_state(), "half": torch.ones(2, dtype=torch.bfloat16), "zero": torch.tensor(3),
    }  # fmt: skip
    save_state(path, tree)
    back = load_state(path)
    assert back["a"].equal(shared)
    assert back["b"].equal(shared[2:4])
    assert (back["t"], back["n"]) == (tree["t"], tree["n"])
    assert back["rng"].equal(tree["rng"])
    assert back["half"].dtype == torch.bfloat16
    assert back["zero"].shape == ()
    with pytest.raises(TypeError):
        save_state(tmp_path / "object", {"a": object()})
    assert not (tmp_path / "object").exists()


def test_a_state_that_is_none_is_refused(tmp_path):
    for name, content in (("empty", b""), ("text", b"hello"), ("pickle", b"\x80\x02}q\x00.")):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(NnoptError):
            load_state(path)
