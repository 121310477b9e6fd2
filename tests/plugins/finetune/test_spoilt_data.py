"""Data with rows that cannot be used, and full disks: what is lost is counted, and nothing else is lost."""

from __future__ import annotations

import shutil
import subprocess
import sys

import numpy as np
import pytest
from finetune_models import finetune, tuned, weights_of, write_data, write_program

CLASSES = ("across", "down", "noise")


@pytest.fixture
def made(tmp_path):
    return write_program(tmp_path)


@pytest.fixture
def images(tmp_path):
    """Forty images of each class in a folder of its own."""
    pillow = pytest.importorskip("PIL.Image")
    draw = np.random.default_rng(0)
    for name in CLASSES:
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(40):
            pixels = draw.integers(0, 255, (6, 6), np.uint8)
            pillow.fromarray(pixels).save(tmp_path / "images" / name / f"{number:02}.png")
    return tmp_path / "images"


def spoil(images, count: int) -> list[str]:
    """Cut some images short; their names."""
    names = [f"across/{number:02}.png" for number in range(count)]
    for name in names:
        (images / name).write_bytes((images / name).read_bytes()[:40])
    return names


def notes(record) -> str:
    return " ".join(record["notes"])


def test_corrupt_images_are_counted_and_named(tmp_path, made, images):
    names = spoil(images, 5)
    args = ("--data", images, "--epochs", 1, "-o", tmp_path / "out.pt2")
    record = tuned(made, *args)
    said = notes(record)
    assert "5 images of 120 could not be read and were left out" in said
    assert "and 2 more" in said
    assert record["training"]["samples"] == 115
    everything = notes(tuned(made, *args, "-v"))
    assert all(name in everything for name in names)


def test_corrupt_images_that_choose_and_report_are_counted_too(tmp_path, made, images):
    """Both in a split of one source and in data of their own."""
    spoil(images, 3)
    split = tuned(made, "--data", images, "--val-split", "0.5", "--epochs", 1, "--dry-run")
    assert "3 images of 120 could not be read" in notes(split)
    apart = ("--val", images, "--test", images, "--epochs", 1, "--dry-run")
    said = notes(tuned(made, "--data", write_data(tmp_path), *apart))
    assert said.count("3 images of 120 could not be read") == 1


def test_strict_stops_at_the_first_one(tmp_path, made, images):
    name = spoil(images, 1)[0]
    done = finetune(made, "--data", images, "--epochs", 1, "--strict", "-o", tmp_path / "out.pt2")
    assert done.code == 1
    assert name in done.stderr
    assert "cannot be read" in " ".join(done.stderr.split())
    assert not (tmp_path / "out.pt2").exists()


def test_no_image_that_can_be_read_and_a_class_without_any(tmp_path, made, images):
    for path in images.rglob("*.png"):
        path.write_bytes(b"")
    done = finetune(made, "--data", images, "--epochs", 1, "--dry-run")
    assert done.code == 1
    assert "could not be read" in " ".join(done.stderr.split())
    shutil.rmtree(images / "down")
    (images / "down").mkdir()
    done = finetune(made, "--data", images, "--epochs", 1, "--dry-run")
    assert done.code == 1
    assert "the class 'down' has no images" in done.stderr


def test_training_on_what_validates_is_said(tmp_path, made):
    data = write_data(tmp_path)
    args = ("--data", data, "--val", data, "--epochs", 1, "--dry-run")
    assert "--val is the data that was trained on" in notes(tuned(made, *args))


def test_a_loss_that_grows_beyond_measure_is_said(tmp_path, made, monkeypatch):
    """It is still a number, and the accuracy by chance no worse."""
    monkeypatch.setenv("COLUMNS", "80")
    args = ("--data", write_data(tmp_path), "--epochs", 2, "--optimizer", "sgd", "--lr", 1e5, "--dry-run")
    done = finetune(made, *args)
    assert done.code == 0, done.stderr
    said = " ".join(done.stdout.split())
    assert "The loss went up from" in said or "Training made it worse" in said
    assert all(len(line) <= 80 for line in done.stdout.splitlines())


def test_validation_data_that_hold_nan_are_said(tmp_path, made):
    data = write_data(tmp_path)
    held = dict(np.load(data))
    held["x"][::3] = np.nan
    np.savez(tmp_path / "nan.npz", **held)
    args = ("--data", data, "--val", tmp_path / "nan.npz", "--keep", "last", "--epochs", 1, "--dry-run")
    assert "The loss on validation rows is nan" in notes(tuned(made, *args))


@pytest.mark.parametrize("kind", ["stream", "rows"])
def test_code_that_fails_on_the_way_is_named(tmp_path, made, kind):
    code = tmp_path / "own.py"
    code.write_text(
        "import torch\n"
        "def stream():\n"
        "    for number in range(40):\n"
        "        if number == 30: raise ValueError('the disk is gone')\n"
        "        yield torch.randn(1, 6, 6), number % 3\n"
        "class rows(torch.utils.data.Dataset):\n"
        "    def __len__(self): return 40\n"
        "    def __getitem__(self, number):\n"
        "        if number == 30: raise ValueError('the disk is gone')\n"
        "        return torch.randn(1, 6, 6), number % 3\n"
    )
    args = ("--data", f"{code}:{kind}", "--epochs", 1, "-o", tmp_path / "out.pt2")
    for extra in ((), ("--workers", 1)) if kind == "rows" else (("--limit", 40),):
        done = finetune(made, *args, *extra)
        said = " ".join(done.stderr.split())
        assert done.code == 1
        assert "internal error" not in said
        assert "fails after" in said
        assert "the disk is gone" in said
        assert not (tmp_path / "out.pt2").exists()


def test_a_batch_too_small_for_a_norm(tmp_path):
    code = tmp_path / "flat.py"
    code.write_text(
        "from torch import nn\n"
        "def build():\n"
        "    parts = nn.Flatten(), nn.Linear(36, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)\n"
        "    return nn.Sequential(*parts)\n"
    )
    args = ("--arch", f"{code}:build", "--init", "he-normal", "--data", write_data(tmp_path), "--dry-run")
    done = finetune(None, *args, "--batch-size", 1)
    assert done.code == 1
    assert "a batch norm takes its statistics from a single value" in " ".join(done.stderr.split())


def test_a_disk_that_is_full_leaves_nothing_half_written(tmp_path, made):
    """Files may not grow beyond what the checkpoint and the output take."""
    out, kept = tmp_path / "out.pt2", tmp_path / "out.pt2.checkpoint"
    code = (
        "import resource, sys\n"
        "from nnopt_cli.app import main\n"
        "import torch, accelerate\n"
        "sys.dont_write_bytecode = True\n"  # Python would leave half of it, and read that the next time
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    args = ("--data", write_data(tmp_path), "--epochs", 1, "--checkpoint-every", 1, "--threads", 1, "-o", out)
    command = [sys.executable, "-c", code, "finetune", made, *args]
    done = subprocess.run([str(each) for each in command], capture_output=True, text=True, timeout=300)
    assert done.returncode == 1, done.stderr
    said = " ".join(done.stderr.split())
    assert str(out) in said
    assert "internal error" not in said
    assert not out.exists()
    assert not kept.exists()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith((".out", "out"))] == []
    assert weights_of(made)
