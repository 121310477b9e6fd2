"""A shrunk `.pt2` back into a module of its own source: exact where it can be, refused where it cannot."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

import nnopt_cli
from nnopt_cli import NnoptError
from nnopt_cli.graph import Keep, analyse, cut, groups


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    torch.set_num_threads(1)


class Plain(nn.Module):
    """Convolutions with norms, a residual sum and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, padding=1)
        self.norm = nn.BatchNorm2d(12)
        self.inner = nn.Sequential(nn.Conv2d(12, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12))
        self.head = nn.Linear(12, 4)

    def forward(self, x):
        x = F.relu(self.norm(self.stem(x)))
        x = F.relu(x + self.inner(x))
        return self.head(x.mean((2, 3)))


class Grouped(nn.Module):
    """Grouped, depthwise and transposed convolutions, group norm, PReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1),
            nn.GroupNorm(4, 16),
            nn.PReLU(16),
            nn.Conv2d(16, 16, 3, padding=1, groups=16),
            nn.Conv2d(16, 24, 1, groups=4),
            nn.ConvTranspose2d(24, 12, 2, 2, groups=3),
            nn.Conv2d(12, 2, 1),
        )

    def forward(self, x):
        return self.net(x)


class Sequence(nn.Module):
    """Embedding, layer norm, LSTM and an MLP."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 8)
        self.norm = nn.LayerNorm(8)
        self.rnn = nn.LSTM(8, 12, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(12, 16), nn.GELU(), nn.Linear(16, 3))

    def forward(self, ids):
        return self.mlp(self.rnn(self.norm(self.embed(ids)))[0][:, -1])


class Reading(nn.Module):
    """Keeps its width in its code, as a number."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 12)
        self.last = nn.Linear(12, 3)

    def forward(self, x):
        return self.last(F.relu(self.first(x)).view(-1, 12))


class Scaling(nn.Module):
    """Keeps its width in its code, where nothing fails: the result is simply another."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 12)
        self.last = nn.Linear(12, 3)

    def forward(self, x):
        x = F.relu(self.first(x))
        return self.last(x) / x.shape[1]


def shrunk(build, text, path, tmp_path):
    """A file with half of every group of `build`'s channels gone, and the program in it."""
    torch.manual_seed(0)
    module = build().eval()
    with torch.no_grad():
        for tensor in [*module.parameters(), *module.buffers()]:
            if tensor.is_floating_point():
                tensor.uniform_(0.2, 1.0)
    torch.save(module.state_dict(), tmp_path / "full.pt")
    model = nnopt_cli.load(tmp_path / "full.pt", build, inputs=text)
    program = model.program()
    coupling = analyse(program)
    draw = np.random.default_rng(0)
    found = groups(coupling)
    assert found
    gone = np.concatenate([draw.permutation(g.classes)[: len(g.classes) // 2] for g in found])
    small = cut(program, coupling, Keep(coupling, gone))
    nnopt_cli.save(model.with_program(small, structure_changed=True), path)
    return small


@pytest.mark.parametrize(
    ("build", "text"),
    [(Plain, "3x8x8"), (Grouped, "3x8x8"), (Sequence, "int64[N,5]<20")],
    ids=lambda x: str(x),
)
def test_the_module_has_the_files_sizes_and_computes_the_same(build, text, tmp_path):
    small = shrunk(build, text, tmp_path / "small.pt2", tmp_path)
    module = nnopt_cli.load(tmp_path / "small.pt2", build).module()
    assert type(module) is build
    count = sum(parameter.numel() for parameter in module.parameters())
    assert count == sum(parameter.numel() for parameter in small.parameters())
    assert count < 0.8 * sum(parameter.numel() for parameter in build().parameters())
    given = nnopt_cli.load(tmp_path / "small.pt2").inputs
    for batch in (1, 4):
        args, _ = given.example(batch)
        expected = small.module()(*args).detach()
        assert torch.allclose(module(*args), expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
    module.train()(*args).sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())


def test_the_layers_say_their_new_sizes(tmp_path):
    shrunk(Grouped, "3x8x8", tmp_path / "small.pt2", tmp_path)
    module = nnopt_cli.load(tmp_path / "small.pt2", Grouped).module()
    for layer in module.net:
        if isinstance(layer, nn.Conv2d):
            assert layer.weight.shape[:2] == (layer.out_channels, layer.in_channels // layer.groups)
        if isinstance(layer, nn.ConvTranspose2d):
            assert layer.weight.shape[:2] == (layer.in_channels, layer.out_channels // layer.groups)
    assert module.net[1].num_channels == module.net[1].weight.shape[0]
    assert str(module) != str(Grouped())


def test_a_size_in_the_code_is_refused_with_its_line(tmp_path):
    shrunk(Reading, "6", tmp_path / "small.pt2", tmp_path)
    with pytest.raises(NnoptError) as caught:
        nnopt_cli.load(tmp_path / "small.pt2", Reading).module()
    assert "its code holds a size that was cut" in str(caught.value)
    assert "view(-1, 12)" in str(caught.value)
    assert "load the file without it" in str(caught.value)


def test_a_size_in_the_code_that_fails_nowhere_is_found_by_comparing(tmp_path):
    """The graph holds 12 as a constant, the module computes it anew."""
    shrunk(Scaling, "6", tmp_path / "small.pt2", tmp_path)
    with pytest.raises(NnoptError, match="computes something else"):
        nnopt_cli.load(tmp_path / "small.pt2", Scaling).module()


def test_another_source_is_refused(tmp_path):
    shrunk(Plain, "3x8x8", tmp_path / "small.pt2", tmp_path)
    with pytest.raises(NnoptError, match="do not fit"):
        nnopt_cli.load(tmp_path / "small.pt2", Sequence).module()


def test_a_dense_file_is_loaded_by_its_source_too(tmp_path):
    torch.save(Plain().state_dict(), tmp_path / "full.pt")
    dense = nnopt_cli.load(tmp_path / "full.pt", Plain, inputs="3x8x8")
    nnopt_cli.save(dense, tmp_path / "full.pt2")
    x = torch.randn(2, 3, 8, 8)
    module = nnopt_cli.load(tmp_path / "full.pt2", Plain).module()
    assert torch.equal(module(x), dense.module()(x))
