"""`nnopt evaluate` from the command line."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from nnopt_cli.testing import run_command

torch.set_num_threads(1)
ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "examples" / "digits" / "digits.pt"
ARCH = f"{ROOT}/examples/digits/net.py:build"
SHARED = ROOT.parent / "shared" / "data"


@pytest.fixture(scope="module")
def pruned(tmp_path_factory):
    path = tmp_path_factory.mktemp("pruned") / "pruned.pt"
    assert run_command("prune", DIGITS, "--sparsity", "0.9", "-o", path, "-q").code == 0
    return path


def evaluate(*args: object):
    return run_command("evaluate", *args)


def test_a_model_is_measured():
    done = evaluate(DIGITS, "--arch", ARCH, "--data", "digits:part=test", "--json")
    assert done.code == 0, done.stderr
    found = done.json
    assert found["task"] == "classification"
    assert (found["classes"], found["samples"]) == (10, 360)
    assert sum(found["counts"]) == 360
    (model,) = found["models"]
    assert model["metrics"]["accuracy"] > 0.95
    assert set(model["metrics"]) == {"accuracy", "top-5", "f1", "nll", "ece"}
    assert model["loss"] == pytest.approx(model["metrics"]["nll"])
    assert model["throughput"] > 0
    assert model["per_class"] == {}


def test_two_models_side_by_side_with_their_classes(pruned):
    done = evaluate(DIGITS, pruned, "--arch", ARCH, "--data", "digits:part=test", "--per-class", "--json")
    assert done.code == 0, done.stderr
    a, b = done.json["models"]
    assert a["metrics"]["accuracy"] > b["metrics"]["accuracy"]
    far, wins = done.json["disagreement"], done.json["wins"]
    assert far[0][0] == far[1][1] == 0
    assert 0 < far[0][1] == far[1][0] <= 1
    gap = a["metrics"]["accuracy"] - b["metrics"]["accuracy"]
    assert (wins[0][1] - wins[1][0]) / 360 == pytest.approx(gap, abs=1e-6)
    confusion = np.array(a["matrices"]["confusion"])
    assert confusion.sum(1).tolist() == done.json["counts"]
    assert confusion.trace() / 360 == pytest.approx(a["metrics"]["accuracy"])
    assert a["per_class"]["recall"] == pytest.approx(list(confusion.diagonal() / confusion.sum(1)))
    shown = evaluate(DIGITS, pruned, "--arch", ARCH, "--data", "digits:part=test", "--per-class").stdout
    assert "A and B answer differently on" in shown
    assert "Best on 360 samples of digits: A, accuracy" in shown


def test_the_same_program_in_a_pt2_scores_the_same(tmp_path, pruned):
    made = tmp_path / "digits.pt2"
    assert run_command("convert", DIGITS, "--arch", ARCH, "--input", "1x8x8", "-o", made, "-q").code == 0
    alone = evaluate(made, "--data", "digits:part=test", "--json").json["models"][0]
    beside = evaluate(made, pruned, "--arch", ARCH, "--data", "digits:part=test", "--json")
    assert beside.code == 0, beside.stderr
    want = evaluate(DIGITS, "--arch", ARCH, "--data", "digits:part=test", "--json").json["models"][0]
    for found in (alone, beside.json["models"][0]):
        assert found["metrics"] == pytest.approx(want["metrics"], rel=1e-4)


@pytest.mark.parametrize("width", [60, 80, 140])
def test_it_fits_the_terminal(pruned, width):
    from nnopt_cli.report.evaluation import Evaluated
    from nnopt_cli.report.evaluation_console import render

    args = (DIGITS, pruned, "--arch", ARCH, "--data", "digits:part=test", "--per-class", "--json")
    for models in (args, (DIGITS, *args[2:])):
        record = Evaluated.model_validate(evaluate(*models).json)
        console = Console(width=width, force_terminal=True, record=True, file=StringIO())
        render(record, console)
        lines = console.export_text().splitlines()
        paths = [line for line in lines if ".pt" in line]
        assert all(len(line) <= width for line in lines if line not in paths)
        assert "accuracy" in " ".join(lines)
        assert ("Confusion" in " ".join(lines)) == (models is not args)


def test_what_was_held_out_is_measured(tmp_path):
    args = (DIGITS, "--arch", ARCH, "--data", "digits", "--val-split", "0.1", "--json")
    found = evaluate(*args).json
    assert found["samples"] == 180
    assert "val-split 0.1" in found["settings"]
    assert evaluate(*args, "--split-seed", "1").json["models"] != found["models"]
    assert (
        evaluate(DIGITS, "--arch", ARCH, "--data", "digits", "--rows", "-100:", "--json").json["samples"]
        == 100
    )
    assert (
        evaluate(DIGITS, "--arch", ARCH, "--data", "digits", "--limit", "50", "--json").json["samples"] == 50
    )


def saved(folder: Path, x: np.ndarray, y: np.ndarray) -> Path:
    np.savez(folder / "d.npz", x=x, y=y)
    return folder / "d.npz"


X = np.zeros((6, 1, 8, 8), np.float32)
BAD = {
    "no data": ([], 2, "--data"),
    "missing file": (["--data", "gone.parquet"], 2, "there is no such file or folder"),
    "unknown": (["--data", "digit"], 2, "Did you mean 'digits'?"),
    "labels": ((X, np.arange(6) * 3), 1, "the model tells 10 classes apart"),
    "shape": ((X.repeat(2, 1), np.arange(6)), 1, "does not take what the data give it"),
    "one sample": ((X[:1], np.zeros(1, int)), 1, "holds one sample"),
    "empty": ((X[:0], np.zeros(0, int)), 1, "there is no data"),
    "misfit": ((X, np.random.default_rng(0).random((6, 3))), 1, "does not fit the targets"),
    "size": (["--data", "digits", "--resize", "big"], 2, "must be a number of pixels"),
    "statistics": (
        ["--data", "digits", "--normalize", "imagenet"],
        2,
        "--normalize has 3 means, the images 1",
    ),
    "both": (["--data", "digits", "--val", "digits", "--val-split", "0.1"], 2, "Give one of them"),
    "metric": (["--data", "digits", "--metric", "r2"], 2, "is not for classification"),
    "rows": (["--data", "digits", "--rows", "9999:"], 2, "1,797 rows"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_a_clear_error(tmp_path, name):
    given, code, said = BAD[name]
    args = ["--data", saved(tmp_path, *given)] if isinstance(given, tuple) else given
    done = evaluate(DIGITS, "--arch", ARCH, *args, "--json")
    assert done.code == code, done.stderr
    assert said in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_models_that_do_not_fit_each_other_are_named(tmp_path):
    torch.save({"head.weight": torch.zeros(3, 64), "head.bias": torch.zeros(3)}, tmp_path / "three.pt")
    (tmp_path / "nets.py").write_text(
        "from torch import nn\n"
        "class Three(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.head = nn.Linear(64, 3)\n"
        "    def forward(self, x):\n"
        "        return self.head(x.flatten(1))\n"
    )
    small = tmp_path / "three.pt2"
    made = ("convert", tmp_path / "three.pt", "--arch", f"{tmp_path}/nets.py:Three", "--input", "1x8x8")
    assert run_command(*made, "-o", small, "-q").code == 0
    done = evaluate(DIGITS, small, "--arch", ARCH, "--data", "digits", "--limit", "50")
    assert done.code == 1
    assert "it gives 3 outputs, and the first model 10" in " ".join(done.stderr.split())
    assert "three.pt2" in done.stderr


def test_a_model_without_its_network_says_what_to_add():
    done = evaluate(DIGITS, "--data", "digits")
    assert done.code == 1
    assert "--arch" in done.stderr


def test_figures_that_are_not_finite_are_null(tmp_path):
    path = saved(tmp_path, np.full((6, 1, 8, 8), np.nan, np.float32), np.arange(6))
    done = evaluate(DIGITS, "--arch", ARCH, "--data", path, "--json")
    assert done.code == 0, done.stderr
    assert done.json["models"][0]["loss"] is None
    assert any("not finite" in note for note in done.json["notes"])
    json.dumps(done.json, allow_nan=False)


NETS = {"resnet20": ("resnet20-12fca82f.th", 0.8103), "resnet32": ("resnet32-d509ac18.th", 0.8256)}


@pytest.mark.skipif(not SHARED.exists(), reason="the shared CIFAR-10 data are not here")
def test_real_images_are_read_as_a_plain_loop_reads_them():
    """The first 300 test images: the same logits' accuracy as with Pillow and the network alone."""
    import io
    import runpy

    import pyarrow.parquet as pq
    from PIL import Image

    from nnopt_cli import load

    file, _ = NETS["resnet20"]
    arch = f"{ROOT}/examples/resnet_cifar.py:resnet20"
    path = SHARED / "checkpoints" / file
    args = ("--data", SHARED / "cifar10" / "test.parquet", "--normalize", "imagenet", "--rows", ":300")
    found = evaluate(path, "--arch", arch, *args, "--json")
    assert found.code == 0, found.stderr
    rows = pq.read_table(SHARED / "cifar10" / "test.parquet").slice(0, 300).to_pylist()
    pixels = [np.asarray(Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB")) for row in rows]
    x = torch.tensor(np.stack(pixels)).permute(0, 3, 1, 2).float() / 255
    x = (x - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(
        3, 1, 1
    )
    net = runpy.run_path(str(ROOT / "examples" / "resnet_cifar.py"))["resnet20"]
    with torch.no_grad():
        logits = load(path, net).module()(x)
    y = torch.tensor([row["label"] for row in rows])
    assert found.json["models"][0]["metrics"]["accuracy"] == pytest.approx(
        (logits.argmax(1) == y).float().mean().item()
    )
    assert found.json["models"][0]["loss"] == pytest.approx(
        torch.nn.functional.cross_entropy(logits, y).item(), rel=1e-4
    )
    assert found.json["names"][:2] == ["airplane", "automobile"]


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.exists(), reason="the shared CIFAR-10 data are not here")
@pytest.mark.parametrize("net", NETS)
def test_published_networks_score_what_they_are_known_to_score(net):
    file, want = NETS[net]
    args = ("--data", SHARED / "cifar10" / "test.parquet", "--normalize", "imagenet", "--json")
    found = evaluate(SHARED / "checkpoints" / file, "--arch", f"{ROOT}/examples/resnet_cifar.py:{net}", *args)
    assert found.json["models"][0]["metrics"]["accuracy"] == pytest.approx(want, abs=1e-4)
