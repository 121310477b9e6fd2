"""`nnopt run` on a model that was fused: again, from its record and its members."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from nnopt_cli import load, save
from nnopt_cli.model.provenance import Provenance
from nnopt_cli.testing import run_command

torch.set_num_threads(1)
EXAMPLES = Path(__file__).parents[2] / "examples" / "ensemble"
GRAPH = ("--arch", f"{EXAMPLES}/net.py:build", "--input", "1x8x8")
DATA = ("--data", "digits:part=test")


def ok(*args: object):
    done = run_command(*args)
    assert done.code == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("members")
    for name in ("left", "right", "start", "stranger"):
        shutil.copy(EXAMPLES / f"{name}.pt", folder)
    for name in ("left", "stranger"):
        ok("convert", folder / f"{name}.pt", *GRAPH, "-o", folder / f"{name}.pt2", "-q")
    return folder


@pytest.fixture
def home(models, tmp_path, monkeypatch):
    shutil.copytree(models, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "args",
    [
        ["left.pt", "right.pt"],
        ["left.pt", "right.pt", "--method", "linear", "--weights", "0.25,0.75", "--integers", "first"],
        ["left.pt", "right.pt", "--method", "ties:density=0.5", "--base", "start.pt"],
        ["left.pt", "right.pt", "--method", "dare-linear", "--base", "start.pt", "--seed", "7"],
        ["left.pt2", "stranger.pt2", "--method", "weighted", *DATA],
    ],
    ids=["auto", "weights", "base", "seed", "data"],
)
def test_a_fused_model_is_made_again_bit_for_bit(home, args):
    out = f"fused{Path(args[0]).suffix}"
    ok("ensemble", *args, "-o", out)
    before = sorted(home.iterdir())
    done = ok("run", out)
    assert "Identical" in done.stdout
    assert sorted(home.iterdir()) == before, "nothing is written unless -o asks for it"


def test_what_differs_is_said(home):
    ok("ensemble", "left.pt", "right.pt", "-o", "fused.pt")
    model = load("fused.pt")
    save(model.map(lambda name, tensor: tensor + 1, ["3.bias"]), "other.pt")
    done = run_command("run", "other.pt", "--json")
    assert done.code == 1
    assert done.json["identical"] is False


def test_passes_after_a_fusion_are_done_again(home):
    ok("ensemble", "left.pt2", "stranger.pt2", "--method", "mean", "-o", "both.pt2")
    ok("prune", "both.pt2", "-s", "0.5", "-o", "small.pt2")
    (home / "both.pt2").unlink()
    done = ok("run", "small.pt2", "-o", "again.pt2", "--json").json
    assert done["identical"] is True
    assert [step["step"] for step in done["runs"][0]["steps"]] == ["ensemble", "prune"]
    one, other = load("small.pt2"), load("again.pt2")
    assert one.provenance.steps == other.provenance.steps
    assert one.provenance.inputs == other.provenance.inputs


def test_members_are_looked_for_and_known_by_their_weights(home):
    ok("ensemble", "left.pt", "right.pt", "-o", "fused.pt")
    (home / "sub").mkdir()
    shutil.move("fused.pt", "sub/fused.pt")
    assert "Identical" in ok("run", "sub/fused.pt").stdout, "in this folder"
    (home / "kept").mkdir()
    for name in ("left.pt", "right.pt"):
        shutil.move(name, f"kept/{name}")
    (home / "left.pt2").unlink()
    done = run_command("run", "sub/fused.pt")
    assert done.code == 1
    assert "was made of left.pt and right.pt" in done.stderr
    assert "--model FOLDER" in done.stderr
    assert "Identical" in ok("run", "sub/fused.pt", "--model", "kept").stdout
    shutil.copy("stranger.pt", "kept/right.pt")
    done = run_command("run", "sub/fused.pt", "--model", "kept")
    assert done.code == 1
    assert "right.pt with other weights" in " ".join(done.stderr.split())
    assert "left.pt with" not in done.stderr
    assert run_command("run", "sub/fused.pt", "--model", "kept/left.pt").code == 2


@pytest.mark.parametrize(
    "step",
    [
        {"method": "code:evil.py:Evil"},
        {"method": {"name": "code:evil.py:Evil"}},
        {"method": "soup", "data": "evil.py:make"},
        {"method": "linear", "align": "code:evil.py:Evil"},
        {"method": "linear", "output": "evil.pt"},
        {"method": "linear", "base": 3, "seed": "x"},
        {"method": "linear", "weights": {"a": 1}},
        {"method": ["linear"]},
    ],
    ids=str,
)
def test_a_hostile_record_of_a_fusion_runs_nothing(home, step):
    (home / "evil.py").write_text("from pathlib import Path\nPath('ran').touch()\n")
    inputs = tuple({"path": name, "blake3": "0" * 64} for name in ("left.pt", "right.pt", "start.pt"))
    record = Provenance(({"pass": "ensemble", **step},), inputs, {}, "0.1.0")
    save(replace(load("left.pt"), provenance=record), "made.pt")
    before = sorted(home.iterdir())
    done = run_command("run", "made.pt")
    assert done.code in (1, 2), done.stdout
    assert "its record: step 1 (ensemble)" in done.stderr
    assert sorted(home.iterdir()) == before


@pytest.mark.parametrize(
    "inputs", [(), ({"path": "left.pt"},), ("left.pt", None), ({"path": "../../x"}, {"path": 3})], ids=str
)
def test_a_record_without_members_is_an_error(home, inputs):
    record = Provenance(({"pass": "ensemble", "method": "linear"},), inputs, {}, "0.1.0")
    save(replace(load("left.pt"), provenance=record), "made.pt")
    done = run_command("run", "made.pt")
    assert done.code in (1, 2)
    assert "internal error" not in done.stderr
    assert "made.pt" in done.stderr
