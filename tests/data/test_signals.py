"""Gradients and activations against autograd and arithmetic done by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from data_models import Both, Small, Tokens, model_of, options, run
from torch import nn

from nnopt_cli import NnoptError
from nnopt_cli.data import activations, gradients
from nnopt_cli.data.place import placed
from nnopt_cli.graph import analyse


def opened(folder, build, inputs, columns, **given):
    np.savez(folder / "d.npz", **columns)
    model = model_of(folder, build, inputs)
    return model, options(data=str(folder / "d.npz"), **given).open(run(), model)


def by_hand(module, data, loss):
    """Mean over batches of the gradient of the batch's mean loss, and of its square."""
    total = {name: torch.zeros_like(p) for name, p in module.named_parameters()}
    squares = {name: torch.zeros_like(p) for name, p in module.named_parameters()}
    batches = list(data.plain)
    for batch in batches:
        module.zero_grad()
        out = batch.call(module)
        loss(out["logits"] if isinstance(out, dict) else out, batch.target).backward()
        for name, parameter in module.named_parameters():
            total[name] += parameter.grad / len(batches)
            squares[name] += parameter.grad.square() / len(batches)
    return total, squares


class Normed(nn.Module):
    """With batch norm and dropout, which must compute as in evaluation."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3)
        self.norm = nn.BatchNorm2d(5)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(5, 4)
        self.norm.running_mean += 0.3

    def forward(self, x):
        return self.head(self.drop(torch.relu(self.norm(self.conv(x))).mean((2, 3))))


DRAW = np.random.default_rng(0)
CASES = {
    "images": (Small, "3x6x6", {"x": DRAW.random((10, 3, 6, 6), np.float32), "y": np.arange(10) % 4}),
    "norm": (Normed, "3x6x6", {"x": DRAW.random((10, 3, 6, 6), np.float32), "y": np.arange(10) % 4}),
    "two inputs": (
        Both,
        "image=float32[N,1,5,5]; extra=float32[N,2]",
        {
            "image": DRAW.random((10, 1, 5, 5), np.float32),
            "extra": DRAW.random((10, 2), np.float32),
            "y": np.arange(10) % 2,
        },
    ),
    "tokens": (
        Tokens,
        "ids=int64[N,5]<20; mask=int64[N,5]<2",
        {"ids": DRAW.integers(0, 20, (10, 5)), "mask": DRAW.integers(0, 2, (10, 5)), "y": np.arange(10) % 3},
    ),
    "values": (
        lambda: nn.Linear(3, 2),
        "float32[N,3]",
        {"x": DRAW.random((10, 3), np.float32), "y": DRAW.random((10, 2))},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_autograds(tmp_path, name):
    build, inputs, columns = CASES[name]
    model, data = opened(tmp_path, build, inputs, columns, batch_size=4)  # batches of 4, 4 and 2
    means, squares = gradients(model.program(), data.plain, data.loss, run())
    want_means, want_squares = by_hand(model.module(), data, data.loss)
    assert set(means) == set(want_means)
    for key, want in want_means.items():
        assert torch.allclose(means[key], want, atol=1e-6, rtol=1e-4), key
        assert torch.allclose(squares[key], want_squares[key], atol=1e-7, rtol=1e-4), key
    assert any(float(value.abs().max()) > 1e-4 for value in means.values())


def test_the_program_is_left_as_it_was(tmp_path):
    build, inputs, columns = CASES["norm"]
    model, data = opened(tmp_path, build, inputs, columns)
    program = model.program()
    before = {name: value.clone() for name, value in program.state_dict.items()}
    gradients(program, data.plain, data.loss, run())
    activations(program, analyse(program), data.plain, run())
    assert all(torch.equal(before[name], value) for name, value in program.state_dict.items())
    assert all(value.grad is None for value in program.state_dict.values())


def test_a_program_on_another_device_is_a_copy(tmp_path):
    build, inputs, columns = CASES["norm"]
    program = opened(tmp_path, build, inputs, columns)[0].program()
    moved = placed(program, "meta")
    assert [node.name for node in moved.graph.nodes] == [node.name for node in program.graph.nodes]
    assert all(value.device.type == "meta" for value in moved.state_dict.values())
    assert all(value.device.type == "cpu" for value in program.state_dict.values())
    assert placed(program, "cpu") is program


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Linear(3, 3, bias=False)
        self.two = nn.Linear(3, 3, bias=False)
        self.two.weight = self.one.weight

    def forward(self, x):
        return self.two(torch.relu(self.one(x)))


def test_names_of_a_tied_weight_share_its_gradient(tmp_path):
    columns = {"x": DRAW.random((8, 3), np.float32), "y": np.arange(8) % 3}
    model, data = opened(tmp_path, Tied, "float32[N,3]", columns)
    means, _ = gradients(model.program(), data.plain, data.loss, run())
    want, _ = by_hand(model.module(), data, data.loss)
    assert torch.allclose(sum(means.values()), want["one.weight"], atol=1e-6)


class Chain(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Conv2d(3, 6, 3)
        self.two = nn.Linear(6, 4)

    def forward(self, x):
        return self.two(torch.relu(self.one(x)).mean((2, 3)))


def test_activations_are_means_over_all_that_carries_a_unit(tmp_path):
    columns = {"x": DRAW.random((10, 3, 6, 6), np.float32), "y": np.arange(10) % 4}
    model, data = opened(tmp_path, Chain, "3x6x6", columns, batch_size=4)
    program = model.program()
    coupling = analyse(program)
    found = activations(program, coupling, data.plain, run())
    module = model.module()
    with torch.no_grad():
        made = module.one(torch.from_numpy(columns["x"]).double().float())
        lit = torch.relu(made)
        pooled = lit.mean((2, 3))
    parts = [made.abs().mean((0, 2, 3)), lit.mean((0, 2, 3)), pooled.abs().mean(0)]
    want = (sum(parts) / 3).numpy()
    classes = coupling.classes(coupling.value(coupling.parameters["one.weight"])[0])
    assert len(set(classes)) == 6
    assert found[classes] == pytest.approx(want, rel=1e-5)
    assert len(found) == coupling.labels.count


def test_a_silent_unit_scores_zero(tmp_path):
    def build():
        net = Chain()
        with torch.no_grad():
            net.one.weight[2] = 0
            net.one.bias[2] = 0
        return net

    columns = {"x": DRAW.random((6, 3, 6, 6), np.float32), "y": np.arange(6) % 4}
    model, data = opened(tmp_path, build, "3x6x6", columns)
    coupling = analyse(model.program())
    classes = coupling.classes(coupling.value(coupling.parameters["one.weight"])[0])
    found = activations(model.program(), coupling, data.plain, run())[classes]
    assert found[2] == 0
    assert (np.delete(found, 2) > 0).all()


def test_a_loss_that_is_not_finite_says_so(tmp_path):
    columns = {"x": np.full((6, 3, 6, 6), np.nan, np.float32), "y": np.arange(6) % 4}
    model, data = opened(tmp_path, Chain, "3x6x6", columns)
    with pytest.raises(NnoptError, match="the loss is nan"):
        gradients(model.program(), data.plain, data.loss, run())
