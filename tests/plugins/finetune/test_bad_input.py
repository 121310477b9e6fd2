"""What cannot be trained is refused with a sentence that says why."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from finetune_models import ARCH, finetune, small, write_data, write_model, write_program

from nnopt_cli.testing import run_command


def refused(done, *sentences: str, code: int = 2) -> None:
    said = " ".join(done.stderr.split())
    assert done.code == code, (done.code, done.stderr)
    for sentence in sentences:
        assert sentence in said, done.stderr
    assert "Traceback" not in said


@pytest.fixture
def made(tmp_path):
    return write_program(tmp_path)


@pytest.fixture
def data(tmp_path):
    return write_data(tmp_path)


def test_no_data(made):
    refused(finetune(made), "needs data")


def test_one_sample_and_too_few_to_choose(tmp_path, made):
    np.savez(tmp_path / "one.npz", x=np.zeros((1, 1, 6, 6), np.float32), y=np.zeros(1, np.int64))
    refused(finetune(made, "--data", tmp_path / "one.npz"), "one sample", code=1)
    few = write_data(tmp_path, 12, name="few.npz")
    args = ("--data", few, "--val-split", "0.5", "--keep", "best")
    refused(finetune(made, *args), "6 validation rows cannot both choose and report")


def test_choosing_without_validation_data(made, data):
    for args in (("--keep", "best"), ("--patience", 1), ("--schedule", "reduce-on-plateau")):
        refused(finetune(made, "--data", data, *args), "--val")


def test_labels_out_of_range_and_an_empty_class(tmp_path, made):
    found = dict(np.load(write_data(tmp_path)))
    np.savez(tmp_path / "far.npz", x=found["x"], y=found["y"] + 5)
    refused(finetune(made, "--data", tmp_path / "far.npz"), "3 classes", code=1)
    np.savez(tmp_path / "lacking.npz", x=found["x"], y=found["y"] % 2)
    done = finetune(made, "--data", tmp_path / "lacking.npz", "--epochs", 1, "--dry-run")
    assert done.code == 0
    assert "class" in done.stdout
    refused(finetune(made, "--data", tmp_path / "lacking.npz", "--strict"), "class", code=1)


def test_an_output_that_does_not_fit_the_loss(made, data):
    done = finetune(made, "--data", data, "--loss", "mse", "--dry-run")
    refused(done, "differ in shape", code=done.code)
    assert done.code in (1, 2)


def test_nothing_to_train(tmp_path, data):
    code = tmp_path / "frozen.py"
    code.write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "from finetune_models import small\n"
        "def build(): return small().requires_grad_(False)\n"
    )
    model = write_model(tmp_path)
    done = finetune(model, "--arch", f"{code}:build", "--data", data, "-o", tmp_path / "out.pt")
    refused(done, "nothing to train", code=1)


def test_weights_that_are_no_numbers(tmp_path, data):
    state = small().state_dict()
    state["conv.weight"][0] = float("nan")
    torch.save(state, tmp_path / "nan.pt")
    refused(finetune(tmp_path / "nan.pt", "--arch", ARCH, "--data", data), "conv.weight holds NaN", code=1)


def test_options_that_contradict_each_other(tmp_path, made, data):
    given = {
        "Give one of them": ("--lr", 0.1, "--optimizer", "sgd:lr=0.2"),
        "needs a GPU": ("--precision", "fp16"),
        "takes all the data": ("--optimizer", "gd", "--accumulate", 2),
        "PATTERN=INITIALIZER": ("--reinit", "head"),
        "nope": ("--reinit", "nope.*=he-normal"),
    }
    for sentence, args in given.items():
        done = finetune(made, "--data", data, *args, "--dry-run", "--device", "cpu")
        refused(done, sentence, code=done.code)
        assert done.code in (1, 2)


@pytest.mark.parametrize(
    ("args", "sentences"),
    [
        (("--warmup", "200%"), ("these are 16 steps", "the whole training has 8")),
        (("--warmup", "8"), ("these are 8 steps",)),
        (("--warmup", "3e"), ("these are 12 steps",)),
        (("--warmup", "soon"), ("'soon': is not STEPS|%|EPOCHSe", "500, 5% of all")),
        (("--warmup", "9" * 5000), ("is not STEPS",)),
        (("--checkpoint-every", "1d"), ("'1d': is not STEPS|TIME", "10m")),
        (("--teacher-weight", 0.9), ("--teacher-weight is about teachers",)),
        (("--temperature", 2), ("--temperature is about teachers",)),
        (("--schedule", "multi-step:milestones=[]"), ("milestones: takes at least 1",)),
        (("--loss", "cross-entropy:weights=[1,2,-3]"), ("weights -3: must be at least 0",)),
        (("--checkpoint", "/nowhere/at/all"), ("there is no folder /nowhere/at",)),
        (("--checkpoint", "/"), ("is a folder",)),
    ],
)
def test_nonsense_is_refused_in_words(tmp_path, made, data, args, sentences):
    done = finetune(made, "--data", data, "--epochs", 2, *args, "-o", tmp_path / "out.pt2")
    refused(done, *sentences)
    assert "after validation" not in done.stderr
    assert "\\d" not in done.stderr
    assert not (tmp_path / "out.pt2").exists()


def test_a_warm_up_that_leaves_one_step_is_none_too_long(made, data):
    done = finetune(made, "--data", data, "--epochs", 2, "--warmup", 7, "--dry-run")
    assert done.code == 0, done.stderr


def test_a_checkpoint_is_written_over_nothing_but_a_checkpoint(tmp_path, made, data):
    held = made.read_bytes()
    args = ("--data", data, "-o", tmp_path / "out.pt2", "--checkpoint", made)
    refused(finetune(made, *args), "in the way of the checkpoint", code=1)
    assert made.read_bytes() == held


def test_a_launch_of_several_processes(tmp_path, made, data, monkeypatch):
    """Each would train on all the data, and write the same file."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    args = ("--data", data, "--epochs", 1, "-o", tmp_path / "out.pt2")
    refused(finetune(made, *args), "in one process, and 2 were launched")
    assert not (tmp_path / "out.pt2").exists()
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert finetune(made, *args).code == 0


def test_resuming_from_a_folder(tmp_path, made, data):
    refused(finetune(made, "--data", data, "--resume", tmp_path, "--dry-run"), "is a folder", code=3)


def test_an_optimizer_for_other_gradients(made, data):
    done = finetune(made, "--data", data, "--optimizer", "code:torch.optim:SparseAdam", "--dry-run")
    refused(done, "cannot take a step", "dense gradients", code=1)


def test_a_stream_without_end_needs_a_length(tmp_path, made):
    code = tmp_path / "own.py"
    code.write_text(
        "import torch\n"
        "def samples():\n"
        "    for number in range(100):\n"
        "        yield torch.zeros(1, 6, 6), number % 3\n"
    )
    refused(finetune(made, "--data", f"{code}:samples", "--dry-run"), "--limit")
    done = finetune(made, "--data", f"{code}:samples", "--limit", 40, "--epochs", 1, "--dry-run", "--json")
    assert done.code == 0, done.stderr
    assert done.json["training"]["samples"] == 40


def test_teachers_that_do_not_fit(tmp_path, made, data):
    refused(finetune(made, "--data", data, "--teacher", tmp_path / "none.pt2"), "none.pt2", code=3)
    weights = write_model(tmp_path, "teacher.pt")
    refused(finetune(made, "--data", data, "--teacher", weights), "holds weights only", code=1)


def test_a_teacher_that_answers_probabilities(tmp_path, made, data):
    """Softened once more they would be next to equal for all classes."""
    code = tmp_path / "ends.py"
    code.write_text(
        "import torch\n"
        "def build():\n"
        "    parts = torch.nn.Flatten(), torch.nn.Linear(36, 3), torch.nn.Softmax(1)\n"
        "    return torch.nn.Sequential(*parts)\n"
    )
    weights, teacher = tmp_path / "ends.pt", tmp_path / "ends.pt2"
    torch.save({"1.weight": torch.randn(3, 36), "1.bias": torch.zeros(3)}, weights)
    args = ("--arch", f"{code}:build", "--input", "1x6x6", "-o", teacher, "-q")
    assert run_command("convert", weights, *args).code == 0
    refused(finetune(made, "--data", data, "--teacher", teacher), "answers probabilities", code=1)


def test_no_model_at_all(data, tmp_path):
    refused(finetune(None, "--data", data), "-o")
    args = ("--data", data, "--arch", ARCH, "-o", tmp_path / "out.pt")
    refused(finetune(None, *args), "--init")


def test_weights_without_a_source(tmp_path, data):
    refused(finetune(write_model(tmp_path), "--data", data), "--arch", code=1)


def test_a_last_batch_of_one_is_left_out(tmp_path, made):
    odd = write_data(tmp_path, 33, name="odd.npz")
    done = finetune(made, "--data", odd, "--epochs", 1, "--dry-run", "--json")
    assert done.code == 0, done.stderr
    assert done.json["training"]["samples"] == 32
