"""The three rungs: what a model can do on each, how weights are matched to a module, and what is refused."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import nnopt_cli
from nnopt_cli import MemoryWeight, NnoptError, UsageError
from nnopt_cli.formats.checkpoint import Container
from nnopt_cli.model.arch import from_callable, from_code
from nnopt_cli.model.fit import fill
from nnopt_cli.model.model import Model
from nnopt_cli.model.naming import GRAPH_RULE, select
from nnopt_cli.run import Run

ROOT = Path(__file__).parents[2]
CHECKPOINT = ROOT.parent / "shared" / "data" / "checkpoints" / "resnet20-12fca82f.th"
NET = """
import torch
from torch import nn
from beside import WIDTH

NUMBER = 3
ready = nn.Linear(4, 2)

class Net(nn.Module):
    def __init__(self, width=WIDTH, classes=2):
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.fc = nn.Linear(width, classes)

    def forward(self, x):
        return self.fc(torch.relu(self.norm(self.conv(x))).mean((2, 3)))

def text():
    return "no network"

def broken():
    raise ValueError("out of memory, or so")

class Zoo:
    small = staticmethod(lambda: Net(4))
"""


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def net(tmp_path):
    (tmp_path / "beside.py").write_text("WIDTH = 8\n")
    path = tmp_path / "net.py"
    path.write_text(NET)
    yield path
    sys.modules.pop("beside", None)


@pytest.fixture
def saved(net, tmp_path):
    """A checkpoint of Net, with statistics and biases that are not constant, and the network."""
    torch.manual_seed(0)
    module = from_code(f"{net}:Net").build()
    with torch.no_grad():
        for tensor in [*module.parameters(), module.norm.running_mean]:
            tensor.normal_()
    torch.save(module.state_dict(), tmp_path / "model.pt")
    return tmp_path / "model.pt", module


IMAGE = torch.randn(3, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def weights_of(module):
    made = {}
    return {
        name: made.setdefault(id(tensor), MemoryWeight.of(name, tensor))
        for name, tensor in module.state_dict(keep_vars=True).items()
    }


# Architectures


def test_code_references(net, monkeypatch):
    assert from_code(f"{net}:Net").build().conv.out_channels == 8
    assert from_code(f"code:{net}:Net", {"width": 5}).build().conv.out_channels == 5
    assert from_code(f"{net}:Zoo.small").build().conv.out_channels == 4
    assert isinstance(from_code(f"{net}:ready").build(), nn.Linear)
    assert str(net.parent) not in sys.path
    monkeypatch.chdir(net.parent)
    assert not from_code("net:Net").build().training
    sys.modules.pop("net")


def test_building_is_seeded_and_leaves_the_generator_alone(net):
    arch = from_code(f"{net}:Net")
    before = torch.random.get_rng_state()
    first, second = arch.build(), arch.build()
    assert torch.equal(first.conv.weight, second.conv.weight)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("Nett", "Did you mean 'Net'"),
        ("NUMBER", "is a int, which cannot be called"),
        ("text", "gives a str, not an nn.Module"),
        ("broken", "ValueError: out of memory, or so (.*net.py, line 23"),
        ("Zoo", "gives a Zoo, not an nn.Module"),
    ],
)
def test_what_is_no_network(net, name, told):
    with pytest.raises(NnoptError) as caught:
        from_code(f"{net}:{name}").build()
    assert re.search(told.replace("(", r"\(", 1), str(caught.value)), str(caught.value)


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("net.py", "not understood"),
        ("nowhere/net.py:build", "there is no file"),
        ("no_such_package_of_mine:build", "No module named"),
    ],
)
def test_what_is_not_there(spec, told):
    with pytest.raises(UsageError, match=told):
        from_code(spec)


def test_a_file_that_does_not_import(tmp_path):
    (tmp_path / "bad.py").write_text("x = 1\nimport nothing_of_that_name\n")
    with pytest.raises(UsageError, match="nothing_of_that_name"):
        from_code(f"{tmp_path}/bad.py:x")
    (tmp_path / "worse.py").write_text("x = 1\nraise SystemExit(3)\n")
    with pytest.raises(UsageError, match=r"SystemExit: 3 \(.*worse.py, line 2"):
        from_code(f"{tmp_path}/worse.py:x")


def test_arguments_that_do_not_fit_show_the_signature(net):
    with pytest.raises(UsageError) as caught:
        from_code(f"{net}:Net", {"widht": 3}).build()
    assert "widht" in str(caught.value)
    assert "Net(width=8, classes=2)" in str(caught.value)


def test_a_module_itself_is_copied():
    given = nn.Linear(2, 2)
    built = from_callable(given).build()
    assert built is not given
    assert torch.equal(built.weight, given.weight)
    with pytest.raises(UsageError, match="is a str"):
        from_callable("net.py:Net")  # type: ignore[arg-type]


# Weights into modules


def test_what_does_not_fit_is_listed_with_close_names_and_counted():
    given = weights_of(nn.Sequential(*(nn.Linear(3, 3) for _ in range(4))))
    renamed = {name.replace("weight", "wieght"): weight for name, weight in given.items()}
    with pytest.raises(NnoptError) as caught:
        fill(nn.Sequential(*(nn.Linear(3, 3) for _ in range(6))), renamed, "net.py:Net")
    told = str(caught.value)
    assert "8 not in the file:" in told
    assert "0.weight (Did you mean '0.wieght'" in told
    assert "and 4 more" in told
    assert "4 not in the module:" in told
    assert "of another shape" not in told


def test_shapes_that_differ():
    with pytest.raises(NnoptError) as caught:
        fill(nn.Linear(3, 4), weights_of(nn.Linear(3, 5)), "x")
    assert "weight: the file has [5, 3], the module [4, 3]" in str(caught.value)
    assert "another number of classes" in str(caught.value)


@pytest.mark.parametrize("more", ["file", "module"])
def test_a_prefix_on_one_side_is_seen_through_and_said(more):
    inner, outer = nn.Sequential(nn.Linear(3, 3)), nn.Sequential()
    outer.add_module("backbone", nn.Sequential(nn.Linear(3, 3)))
    source, target = (outer, inner) if more == "file" else (inner, outer)
    fit = fill(target, weights_of(source), "x")
    assert torch.equal(next(target.parameters()), next(source.parameters()))
    assert f"All names in the {more} begin with 'backbone.'" in fit.notes[0]


def test_counters_and_index_tables_may_be_absent_or_left_over_but_no_statistics():
    full = weights_of(nn.BatchNorm2d(3))
    counted = {name: weight for name, weight in full.items() if name != "num_batches_tracked"}
    assert "num_batches_tracked" in fill(nn.BatchNorm2d(3), counted, "x").notes[0]
    bare = {name: weight for name, weight in full.items() if name != "running_mean"}
    with pytest.raises(NnoptError, match="running_mean"):
        fill(nn.BatchNorm2d(3), bare, "x")
    more = {**full, "position_ids": MemoryWeight.of("position_ids", torch.arange(4))}
    assert "position_ids" in fill(nn.BatchNorm2d(3), more, "x").notes[0]


class Tied(nn.Module):
    """An embedding and a head that are one parameter."""

    def __init__(self, tied: bool = True) -> None:
        super().__init__()
        self.embed = nn.Embedding(6, 4)
        self.head = nn.Linear(4, 6, bias=False)
        if tied:
            self.head.weight = self.embed.weight

    def forward(self, ids):
        return self.head(self.embed(ids))


def test_a_tie_needs_one_of_its_names_and_no_contradiction():
    source = weights_of(Tied())
    alone = {"embed.weight": source["embed.weight"]}
    target = Tied()
    fill(target, alone, "x")
    assert target.head.weight is target.embed.weight
    assert torch.equal(target.head.weight, source["embed.weight"].torch())
    with pytest.raises(NnoptError, match="shares one tensor"):
        fill(Tied(), weights_of(Tied(tied=False)), "x")
    loose = Tied(tied=False)
    fill(loose, source, "x")
    assert torch.equal(loose.head.weight, loose.embed.weight)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_tensors_take_the_files_dtype(dtype):
    source = nn.LSTM(3, 4).to(dtype)
    target = nn.LSTM(3, 4)
    fill(target, weights_of(source), "x")
    x = torch.randn(2, 1, 3, dtype=dtype)
    assert torch.equal(target(x)[0], source(x)[0])


# The rungs of a model


def test_what_each_rung_can_do(saved, net):
    path, module = saved
    low = nnopt_cli.load(path)
    assert (low.rung, low.inputs) == ("weights", None)
    middle = nnopt_cli.load(path, arch=f"{net}:Net")
    assert middle.rung == "module"
    assert torch.equal(middle.module()(IMAGE), module(IMAGE))
    high = nnopt_cli.load(path, arch=f"{net}:Net", inputs="3x6x6")
    assert high.rung == "graph"
    assert str(high.inputs) == "[N,3,6,6]"
    assert torch.equal(high.program().module()(IMAGE), module(IMAGE))
    assert high.program() is high.program()


def test_lower_rungs_say_what_to_add(saved, net):
    path, _ = saved
    for ask in (Model.module, Model.program):
        with pytest.raises(NnoptError, match=r"weights only[\s\S]*--arch"):
            ask(nnopt_cli.load(path))
    with pytest.raises(NnoptError, match=r"takes an input[\s\S]*--input"):
        nnopt_cli.load(path, arch=f"{net}:Net").program()
    with pytest.raises(UsageError, match="--arch"):
        nnopt_cli.load(path, inputs="3x6x6")
    with pytest.raises(UsageError, match="both build and arch"):
        nnopt_cli.load(path, nn.Linear, arch="net.py:Net")


def test_edits_reach_the_module_and_the_program(saved, net):
    path, module = saved
    model = nnopt_cli.load(path, arch=f"{net}:Net", inputs="3x6x6")
    base = model.program()
    edited = model.map(lambda name, weight: weight * 2, ["fc.weight", "fc.bias"])
    expected = module(IMAGE) * 2
    assert torch.allclose(edited.module()(IMAGE), expected)
    assert torch.allclose(edited.program().module()(IMAGE), expected)
    assert model.program() is base
    assert torch.equal(base.module()(IMAGE), module(IMAGE))


def test_ties_stay_ties_on_the_graph(tmp_path):
    torch.save(Tied().state_dict(), tmp_path / "tied.pt")
    model = nnopt_cli.load(tmp_path / "tied.pt", Tied, inputs="int64[N,5]<6")
    assert model.weights["embed.weight"] is model.weights["head.weight"]
    held = model.with_program(model.program(), structure_changed=False)
    assert held.weights["embed.weight"] is held.weights["head.weight"]
    doubled = held.map(lambda name, weight: weight * 2).program()
    assert doubled.state_dict["embed.weight"] is doubled.state_dict["head.weight"]
    nnopt_cli.save(held, tmp_path / "tied.pt2")
    again = nnopt_cli.load(tmp_path / "tied.pt2")
    assert again.weights["embed.weight"] is again.weights["head.weight"]


def test_on_a_graph_the_graph_says_what_is_prunable(tmp_path):
    class Odd(nn.Module):
        """Names that mislead: `norm` is a convolution, `table` a linear map, `unused` nothing at all."""

        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.Conv1d(3, 4, 3)
            self.table = nn.Parameter(torch.randn(4, 4))
            self.scale_map = nn.Parameter(torch.randn(4, 1))
            self.unused = nn.Linear(4, 4)
            self.lookup = nn.Embedding(5, 4)
            self.rnn = nn.GRU(4, 4, batch_first=True)

        def forward(self, x, ids):
            y = self.norm(x) * self.scale_map + self.lookup(ids).mean(1)[..., None]
            return self.rnn(y.transpose(1, 2) @ self.table.t())[0]

    torch.save(Odd().state_dict(), tmp_path / "odd.pt")
    model = nnopt_cli.load(tmp_path / "odd.pt", Odd, inputs="float32[N,3,9]; int64[N,3]<5")
    expected = ("table", "norm.weight", "rnn.weight_ih_l0", "rnn.weight_hh_l0")
    chosen = select(model)
    assert set(chosen.names) == set(expected)
    assert chosen.rule == GRAPH_RULE
    assert chosen.left_out["lookup.weight"] == "embedding"
    assert chosen.left_out["unused.weight"] == "not used by the graph"
    assert chosen.left_out["scale_map"].startswith("not the weight of a convolution")
    nnopt_cli.save(model, tmp_path / "odd.pt2")
    assert select(nnopt_cli.load(tmp_path / "odd.pt2")) == chosen
    assert "scale_map" in select(model, include=["scale_map"]).names


def test_a_pt2_is_looked_at_without_pytorch(saved, net, tmp_path):
    path, _ = saved
    nnopt_cli.save(nnopt_cli.load(path, arch=f"{net}:Net", inputs="3x6x6"), tmp_path / "model.pt2")
    code = (
        "import sys, nnopt_cli\n"
        "from nnopt_cli.model.naming import select\n"
        "from nnopt_cli.testing import run_command\n"
        "model = nnopt_cli.load(sys.argv[1])\n"
        "assert model.rung == 'graph' and select(model).names == ('conv.weight', 'fc.weight')\n"
        "assert run_command('inspect', sys.argv[1]).code == 0\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "model.pt2"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_a_pt2_serves_every_rung_without_its_source(saved, net, tmp_path):
    path, module = saved
    nnopt_cli.save(nnopt_cli.load(path, arch=f"{net}:Net", inputs="3x6x6"), tmp_path / "model.pt2")
    net.unlink()
    model = nnopt_cli.load(tmp_path / "model.pt2")
    assert torch.equal(model.module()(IMAGE), module(IMAGE))
    assert str(model.inputs) == "float32[N,3,6,6]"
    halved = model.map(lambda name, weight: weight / 2, ["fc.weight", "fc.bias"])
    nnopt_cli.save(halved, tmp_path / "half.pt2")
    assert torch.allclose(nnopt_cli.load(tmp_path / "half.pt2").module()(IMAGE), module(IMAGE) / 2)
    with pytest.raises(UsageError, match="says itself what it is fed"):
        nnopt_cli.load(tmp_path / "model.pt2", inputs="3x6x6")


def test_edits_stream_into_the_graphs_file_and_are_counted(saved, net, tmp_path):
    path, _ = saved
    model = nnopt_cli.load(path, arch=f"{net}:Net", inputs="3x6x6")
    plain = nnopt_cli.load(path)
    zeroed = model.map(lambda name, weight: weight * 0, ["fc.weight"])
    saved_as = nnopt_cli.save(zeroed, tmp_path / "zero.pt2", run=Run())
    tally = saved_as.tallies["fc.weight"]
    assert (tally.zeros_before, tally.zeros_after, tally.changed) == (0, 16, True)
    assert saved_as.blake3 == nnopt_cli.save(plain, None).blake3
    assert not nnopt_cli.load(tmp_path / "zero.pt2").weights["fc.weight"].torch().any()


def test_a_weight_of_another_shape_is_refused(saved, net):
    path, _ = saved
    model = nnopt_cli.load(path, arch=f"{net}:Net", inputs="3x6x6")
    model.program()
    other = dict(model.weights)
    other["fc.bias"] = MemoryWeight.of("fc.bias", torch.zeros(3))
    with pytest.raises(NnoptError, match=r"fc\.bias"):
        replace(model, weights=other).program()


def test_the_hash_of_the_input_survives_a_change_of_structure(saved, net, tmp_path):
    path, _ = saved
    plain = nnopt_cli.save(nnopt_cli.load(path), None).blake3
    model = nnopt_cli.load(path, arch=f"{net}:Net", inputs="3x6x6")
    other = nnopt_cli.load(path, arch=f"{net}:Net", arguments={}, inputs="3x6x6").map(
        lambda name, weight: weight + 1
    )
    changed = model.with_program(other.program(), structure_changed=True)
    assert nnopt_cli.save(changed, tmp_path / "changed.pt2").blake3 == plain
    made_from = nnopt_cli.load(tmp_path / "changed.pt2").provenance.inputs
    assert made_from[0] == {"path": "model.pt", "blake3": plain}


@pytest.mark.skipif(not CHECKPOINT.exists(), reason="the CIFAR checkpoints are not here")
def test_a_checkpoint_as_found_in_the_wild(tmp_path):
    sys.path.insert(0, str(ROOT / "examples"))
    try:
        from resnet_cifar import resnet20
    finally:
        sys.path.remove(str(ROOT / "examples"))
    reference = resnet20().eval()
    found = torch.load(CHECKPOINT, map_location="cpu", weights_only=True)["state_dict"]
    reference.load_state_dict({name.removeprefix("module."): t for name, t in found.items()}, strict=False)
    model = nnopt_cli.load(CHECKPOINT, resnet20, inputs="3x32x32")
    nnopt_cli.save(model, tmp_path / "resnet20.pt2")
    image = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    got = nnopt_cli.load(tmp_path / "resnet20.pt2").module()(image)
    assert torch.equal(got, reference(image))


def test_memory_models_have_a_path_for_messages():
    model = Model({}, Container(Path("somewhere.pt"), "torch", ()))
    with pytest.raises(NnoptError, match=r"somewhere.pt: this needs the model's module"):
        model.module()
