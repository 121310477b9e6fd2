"""`nnopt convert`: the same weights in every kind of file, and a graph that computes what the module does."""

from __future__ import annotations

import json

import pytest
import torch

import nnopt_cli
from nnopt_cli.model.arch import from_code
from nnopt_cli.testing import run_command, run_process

NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, padding=1)
        self.fc = nn.Linear(width, 2)

    def forward(self, x):
        return self.fc(torch.relu(self.conv(x)).mean((2, 3)))

class Noisy(Net):
    def forward(self, x):
        return super().forward(x) + torch.rand(2)

class Branching(Net):
    def forward(self, x):
        if x.mean() > 0:
            return super().forward(x)
        return -super().forward(x)
"""


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A folder with net.py and model.pt, which becomes the current one; the network's state dict."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(NET)
    torch.manual_seed(0)
    state = from_code("net.py:Net").build().state_dict()
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "model.pt")
    return state


def same(path, state):
    weights = nnopt_cli.load(path).weights
    assert list(weights) == list(state)
    assert all(torch.equal(weights[name].torch(), tensor) for name, tensor in state.items())


def test_from_weights_to_a_graph_and_back(files, tmp_path):
    done = run_command("convert", "model.pt", "--arch", "net.py:Net", "--input", "3x6x6", "-o", "model.pt2")
    assert done.code == 0, done.stderr
    told = " ".join(done.stdout.split())
    assert "as the module computes, at batch 2 and 3" in told
    assert "Wrote model.pt2" in told
    same("model.pt2", files)
    image = torch.randn(5, 3, 6, 6)
    reference = nnopt_cli.load("model.pt", arch="net.py:Net").module()
    assert torch.equal(torch.export.load("model.pt2").module()(image), reference(image))
    assert run_command("convert", "model.pt2", "-o", "back.pt").code == 0
    same("back.pt", files)
    assert torch.load("back.pt", weights_only=True).keys() == files.keys()


def test_the_output_of_a_graph_may_be_left_out(files, tmp_path):
    done = run_command("convert", "model.pt", "--arch", "net.py:Net", "--input", "3x6x6", "-q")
    assert done.code == 0
    assert done.stdout.strip().endswith("model.pt2")
    assert (tmp_path / "model.pt2").exists()
    refused = run_command("convert", "model.pt", "--arch", "net.py:Net", "--input", "3x6x6")
    assert refused.code == 1
    assert "already exists" in refused.stderr


@pytest.mark.parametrize("target", ["w.safetensors", "w.pth", "shards"])
def test_between_kinds_of_weights(files, target):
    done = run_command("convert", "model.pt", "-o", target, "--json")
    assert done.code == 0, done.stderr
    record = json.loads(done.stdout)
    same(target, files)
    assert record["blake3"] == json.loads(run_command("inspect", target, "--json").stdout)["blake3"]
    assert record["agreement"] is None
    assert record["fed"] is None
    assert record["tensors"] == len(files)


def test_arguments_reach_the_source(files):
    arch = ("--arch", "net.py:Net", "--input", "3x6x6", "-o", "model.pt2")
    done = run_command("convert", "model.pt", *arch, "--arch-arg", "width=9")
    assert done.code == 1
    assert "conv.weight: the file has [8, 3, 3, 3], the module [9, 3, 3, 3]" in done.stderr
    assert run_command("convert", "model.pt", *arch, "--arch-arg", "width=8").code == 0
    done = run_command("convert", "model.pt", "-o", "x.pt", "--arch-arg", "width=8")
    assert (done.code, "Give --arch too" in done.stderr) == (2, True)
    assert run_command("convert", "model.pt", *arch, "--arch-arg", "width").code == 2


def files_in(folder):
    """Its files; Python may keep what it compiled of the user's code beside it."""
    return sorted(path for path in folder.iterdir() if path.name != "__pycache__")


@pytest.mark.parametrize(
    ("args", "code", "told"),
    [
        (("-o", "x.pt2"), 1, "Add --arch"),
        (("-o", "x.pt2", "--arch", "net.py:Net"), 1, "Add --input"),
        (("-o", "x.pt2", "--input", "3x6x6"), 2, "Say with --arch"),
        (("-o", "x.pt2", "--arch", "net.py:Nett", "--input", "3x6x6"), 2, "Did you mean 'Net'"),
        (("-o", "x.pt2", "--arch", "nett.py:Net", "--input", "3x6x6"), 2, "there is no file"),
        (("-o", "x.pt2", "--arch", "tim:resnet18", "--input", "3x6x6"), 2, "Loaders: "),
        (("-o", "x.pt2", "--arch", "net.py:Net", "--input", "3-6-6"), 2, "not understood"),
        (
            ("-o", "x.pt2", "--arch", "net.py:Net", "--input", "4x6x6"),
            1,
            "fails when fed float32[2, 4, 6, 6]",
        ),
        (("-o", "x.pt2", "--arch", "net.py:Branching", "--input", "3x6x6"), 1, "if x.mean() > 0:"),
        (
            ("-o", "x.pt2", "--arch", "net.py:Noisy", "--input", "3x6x6"),
            1,
            "does not compute what the module does",
        ),
        ((), 2, "Name the output with -o"),
        (("-o", "x.gguf"), 2, ""),
    ],
)
def test_what_cannot_be_is_said_and_leaves_no_file(files, tmp_path, args, code, told):
    before = files_in(tmp_path)
    done = run_command("convert", "model.pt", *args)
    assert (done.code, done.stdout) == (code, "")
    assert told in done.stderr
    assert files_in(tmp_path) == before


CUSTOM = """
import torch

@torch.library.custom_op("nnopt_convert_test::twice", mutates_args=())
def twice(x: torch.Tensor) -> torch.Tensor:
    return x + x

@twice.register_fake
def _(x):
    return torch.empty_like(x)

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = torch.nn.Linear(4, 8), torch.nn.Linear(8, 3)

    def forward(self, x):
        return self.b(twice(self.a(x)))
"""


def test_custom_operators_are_called_only_when_they_are_allowed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "custom.py").write_text(CUSTOM)
    torch.save(from_code("custom.py:Net").build().state_dict(), "custom.pt")
    done = run_command("convert", "custom.pt", "--arch", "custom.py:Net", "--input", "4", "-o", "custom.pt2")
    assert done.code == 0, done.stderr
    cut = ("prune", "custom.pt2", "--granularity", "channel", "--sparsity", "0.5", "-o", "small.pt2")
    done = run_command(*cut)
    assert (done.code, "small.pt2" in [path.name for path in tmp_path.iterdir()]) == (3, False)
    assert "nnopt_convert_test.twice" in done.stderr
    assert "--operators nnopt_convert_test" in " ".join(done.stderr.split())
    model = nnopt_cli.load("custom.pt2", operators=["nnopt_convert_test"])
    assert model.module()(torch.ones(2, 4)).shape == (2, 3)
    assert "nothing to prune" in run_command(*cut, "--operators", "nnopt_convert_test").stderr


def test_a_dry_run_writes_nothing(files, tmp_path):
    before = files_in(tmp_path)
    args = ("--arch", "net.py:Net", "--input", "3x6x6", "-o", "model.pt2", "--dry-run")
    done = run_command("convert", "model.pt", *args)
    assert done.code == 0
    assert "Nothing was written" in done.stdout
    assert files_in(tmp_path) == before


def test_passes_take_arch_and_input(files):
    graph = ("--arch", "net.py:Net", "--input", "3x6x6")
    assert run_command("prune", "model.pt", "--sparsity", "0.5", *graph, "-o", "a.pt2").code == 0
    assert run_command("prune", "model.pt", "--sparsity", "0.5", *graph).code == 0
    pruned = torch.load("model.pruned.pt", weights_only=True)
    assert pruned["epoch"] == 3  # weights alone were edited: the container stays
    same("a.pt2", pruned["state_dict"])
    module = nnopt_cli.load("a.pt2", arch="net.py:Net").module()
    assert torch.equal(module.conv.weight, pruned["state_dict"]["conv.weight"])


def test_a_change_of_structure_goes_to_a_pt2(files, tmp_path):
    graph = ("--arch", "net.py:Net", "--input", "3x6x6")
    done = run_command("prune", "model.pt", "--sparsity", "0.5", "--granularity", "channel", *graph)
    assert done.code == 0, done.stderr
    assert not (tmp_path / "model.pruned.pt").exists()
    small = nnopt_cli.load("model.pruned.pt2", arch="net.py:Net").module()
    assert small.conv.out_channels == 4
    done = run_command("convert", "model.pruned.pt2", "-o", "small.safetensors")
    assert done.code == 0
    assert nnopt_cli.load("small.safetensors").weights["conv.weight"].shape == (4, 3, 3, 3)


@pytest.mark.slow
def test_it_runs_as_a_process_of_its_own(files):
    done = run_process("convert", "model.pt", "--arch", "net:Net", "--input", "3x6x6", "-o", "model.pt2")
    assert done.code == 0, done.stderr
    assert done.stderr == ""
