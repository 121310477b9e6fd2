"""Several programs in one: equal to the members run apart, what they share stored and computed once."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from nnopt_cli import NnoptError
from nnopt_cli.formats.pt2_read import read_program
from nnopt_cli.formats.pt2_write import write_program
from nnopt_cli.graph import common_inputs, fused
from nnopt_cli.graph.reference import run
from nnopt_cli.graph.sharing import share
from nnopt_cli.model.inputs import InputSpec

torch.set_num_threads(1)
X = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Sum(nn.Module):
    def forward(self, outputs: list[Tensor]) -> Tensor:
        return torch.stack(outputs).sum(0)


class Net(nn.Module):
    """In-place rectifiers and a residual sum written in place, as networks in the wild have them."""

    def __init__(self, width: int = 6, classes: int = 4) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width)
        self.conv2, self.norm2 = nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width)
        self.relu, self.drop = nn.ReLU(inplace=True), nn.Dropout(0.5)
        self.head = nn.Linear(width, classes)
        for norm in (self.norm1, self.norm2):
            norm.running_mean.uniform_(-1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(x))
        y += x
        return self.head(self.drop(self.relu(y).mean((2, 3))))


def exported(net: nn.Module, batch: object = torch.export.Dim.DYNAMIC) -> ExportedProgram:
    shapes = ({0: batch},) if batch is not None else None
    return torch.export.export(net.eval(), (X[:2],), dynamic_shapes=shapes)


def nets(*changed: str) -> tuple[Net, Net]:
    """Two networks that differ in the named parameters."""
    torch.manual_seed(0)
    one = Net()
    two = copy.deepcopy(one)
    with torch.no_grad():
        for name in changed:
            two.get_parameter(name).add_(0.1 * torch.randn_like(two.get_parameter(name)))
    return one, two


def convolutions(program: ExportedProgram) -> int:
    return sum("conv2d" in str(node.target) for node in program.graph.nodes)


def test_members_of_different_architectures_answer_together():
    torch.manual_seed(0)
    flat = nn.Sequential(nn.Flatten(), nn.Linear(192, 4), nn.Tanh())
    members = [exported(Net(6)), exported(Net(9)), exported(flat)]
    made = fused(members, Sum(), lambda output: output)
    assert made.shared.layers == 0
    for batch in (1, 5):
        want = sum(run(member, [X[:batch].double()], torch.float64)[0] for member in members)
        got = run(made.program, [X[:batch].double()], torch.float64)[0]
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("changed", "convs", "layers"),
    [
        (["head.weight"], 2, 4),  # convolutions and norms; the classifier apart
        (["conv2.bias", "head.weight"], 3, 2),
        (["conv1.weight"], 4, 0),  # nothing above is computed alike
        ([], 2, 5),
    ],
)
def test_a_common_trunk_is_stored_and_computed_once(changed, convs, layers):
    one, two = nets(*changed)
    members = [exported(one), exported(two)]
    made = fused(members, Sum(), lambda output: output)
    assert convolutions(made.program) == convs
    assert made.shared.layers == layers
    want = sum(run(member, [X.double()], torch.float64)[0] for member in members)
    torch.testing.assert_close(
        run(made.program, [X.double()], torch.float64)[0], want, rtol=1e-12, atol=1e-12
    )
    stored = sum(t.numel() for t in made.program.state_dict.values() if t.is_floating_point())
    alone = sum(t.numel() for t in one.state_dict().values() if t.is_floating_point())
    assert stored == 2 * alone - made.shared.elements
    if changed:
        assert made.shared.elements < alone
    else:
        assert stored == alone


def test_three_members_share_with_each_other():
    one, two = nets("head.weight")
    _, three = nets("conv2.weight", "head.weight")
    made = fused([exported(net) for net in (one, two, three)], Sum(), lambda output: output)
    assert convolutions(made.program) == 3
    with torch.no_grad():
        want = one(X) + two(X) + three(X)
        torch.testing.assert_close(made.program.module()(X), want)


class Alike(nn.Module):
    """Two layers that hold equal numbers, which training would drive apart."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(192, 4), nn.Linear(192, 4)
        self.b.load_state_dict(self.a.state_dict())

    def forward(self, x: Tensor) -> Tensor:
        return self.a(x.flatten(1)) + self.b(x.flatten(1))


def test_layers_of_one_member_stay_apart():
    net = Alike()
    other = copy.deepcopy(net)
    with torch.no_grad():
        other.a.weight.add_(1)
    made = fused([exported(net), exported(other)], Sum(), lambda output: output)
    linear = [node for node in made.program.graph.nodes if "linear" in str(node.target)]
    assert len(linear) == 3  # a, b, and the other's a; its b is b
    with torch.no_grad():
        torch.testing.assert_close(made.program.module()(X), net(X) + other(X))


class Written(nn.Module):
    """Writes to a value that is read again, once before and once after."""

    def __init__(self, by: float) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)
        self.by = by

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        before = y * 2
        y.add_(self.by)
        return (before + y).mean((1, 2))


def test_what_is_written_to_is_not_shared():
    torch.manual_seed(0)
    one, two = Written(1.0), Written(2.0)
    two.layer.load_state_dict(one.layer.state_dict())
    made = fused([exported(one), exported(two)], Sum(), lambda output: output)
    with torch.no_grad():
        torch.testing.assert_close(made.program.module()(X), one(X) + two(X))


class Noise(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((1, 2)) + torch.rand_like(x[:, 0, 0])


def test_what_is_drawn_at_random_is_not_shared():
    made = fused([exported(Noise()), exported(Noise())], Sum(), lambda output: output)
    drawn = [node for node in made.program.graph.nodes if "rand" in str(node.target)]
    assert len(drawn) == 2


def test_sharing_again_finds_nothing_more():
    one, two = nets("head.weight")
    made = fused([exported(one), exported(two)], Sum(), lambda output: output)
    again, found = share(made.program, "members.")
    assert found.operators == 0
    assert len(again.state_dict) == len(made.program.state_dict)


def test_a_fused_program_is_fused_again():
    one, two = nets("conv1.weight")
    made = fused([exported(one), exported(two)], Sum(), lambda output: output).program
    more = fused([made, exported(one)], Sum(), lambda output: output)
    with torch.no_grad():
        torch.testing.assert_close(more.program.module()(X), 2 * one(X) + two(X))
    assert convolutions(more.program) == convolutions(made)


def test_it_is_saved_without_pickle_and_runs_without_source(tmp_path: Path):
    one, two = nets("head.weight")
    program = fused([exported(one), exported(two)], Sum(), lambda output: output).program
    write_program(program, tmp_path / "fused.pt2")
    read_program(tmp_path / "fused.pt2")  # all its operators are allowed
    torch.save(X, tmp_path / "x.pt")
    code = (
        "import sys, torch; torch.set_num_threads(1); net = torch.export.load('fused.pt2').module(); "
        "torch.save(net(torch.load('x.pt')), 'y.pt'); assert 'nnopt_cli' not in sys.modules"
    )
    subprocess.run([sys.executable, "-P", "-c", code], check=True, cwd=tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(torch.load(tmp_path / "y.pt"), one(X) + two(X))


def inputs(*texts: str) -> InputSpec:
    return InputSpec.parse(texts)


def test_sizes_that_all_members_take():
    free, fixed = inputs("float32[N,3,8,8]"), inputs("float32[4,3,8,8]")
    assert str(common_inputs([free, free])) == "float32[N,3,8,8]"
    assert str(common_inputs([free, fixed])) == str(common_inputs([fixed, free])) == "float32[4,3,8,8]"
    narrow, wide = inputs("float32[N,T:4..64]"), inputs("float32[N,T:8..100]")
    assert str(common_inputs([narrow, wide])) == "float32[N,T:8..64]"
    below = common_inputs([inputs("int64[N,16]<99"), inputs("int64[N,16]<50")])
    assert str(below) == "int64[N,16]<50"


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        ("float32[N,3,8,8]", "float32[N,1,8,8]", "float32[N,1,8,8]"),
        ("float32[N,8]", "int64[N,8]", "int64[N,8]"),
        ("float32[N,8]", "float32[N,8]; float32[N,2]", "takes"),
        ("a=float32[N,8]", "b=float32[N,8]", "b=float32"),
        ("float32[N,T:4..8]", "float32[N,T:9..12]", "T:9..12"),
        ("float32[N,T:4..8]", "float32[N,16]", "16"),
    ],
)
def test_inputs_that_do_not_fit(one, other, said):
    with pytest.raises(NnoptError, match=r"b\.pt") as raised:
        common_inputs([inputs(one), inputs(other)], ["a.pt", "b.pt"])
    assert said in raised.value.message
    assert "same inputs" in raised.value.hint


def test_inputs_keep_their_names():
    class Masked(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 3))

        def forward(self, image: Tensor, *, mask: Tensor) -> Tensor:
            return self.net(image) * mask

    batch = torch.export.Dim("batch", min=2, max=99)
    given, named = torch.randn(2, 4), {"mask": torch.ones(2, 3)}
    shapes = {"image": {0: batch}, "mask": {0: batch}}
    programs = [torch.export.export(Masked(k), (given,), named, dynamic_shapes=shapes) for k in (5, 6)]
    program = fused(programs, Sum(), lambda output: output).program
    specs = program.graph_signature.input_specs
    assert [spec.arg.name for spec in specs if spec.kind.name == "USER_INPUT"] == ["image", "mask"]
    x, mask = torch.randn(7, 4), torch.rand(7, 3)
    want = sum(each.module()(x, mask=mask) for each in programs)
    torch.testing.assert_close(program.module()(x, mask=mask), want)
