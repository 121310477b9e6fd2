"""Programs whose norms and dropouts follow the mode again, against the modules that they came from."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nnopt_cli.graph import trainable


class Everything(nn.Module):
    """Every operator that knows a mode, and a tied weight."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.instance = nn.InstanceNorm2d(8, affine=True, track_running_stats=True)
        self.channels = nn.Dropout2d(0.5)
        self.linear = nn.Linear(8, 4)
        self.alpha = nn.AlphaDropout(0.2)
        self.drop = nn.Dropout(0.3, inplace=True)
        self.leaky = nn.RReLU()
        self.memory = nn.LSTM(4, 4, 2, dropout=0.4, batch_first=True)
        self.head = nn.Linear(4, 4)
        self.tied = nn.Linear(4, 4, bias=False)
        self.tied.weight = self.head.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.channels(torch.relu(self.instance(self.norm(self.conv(x))))).mean((2, 3))
        x = self.leaky(self.drop(self.alpha(self.linear(x)) * 1.0))
        x = self.memory(x[:, None])[0][:, 0]
        with torch.no_grad():
            scale = self.norm(torch.arange(16.0).reshape(2, 8, 1, 1)).square().mean()
        return self.tied(self.head(x)) * scale


@pytest.fixture(scope="module")
def pair():
    torch.manual_seed(0)
    module, x = Everything().eval(), torch.randn(6, 3, 8, 8)
    module.memory.flatten_parameters()
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(module, (x,), dynamic_shapes=({0: torch.export.Dim("n")},))
    return module, program, x


def test_a_step_of_training_is_the_modules_own(pair):
    module, program, x = pair
    found = trainable(program)
    assert not found.training
    torch.testing.assert_close(found(x), module(x))
    found.train()
    module.train()
    torch.manual_seed(1)
    mine = found(x)
    torch.manual_seed(1)
    own = module(x)
    torch.testing.assert_close(mine, own)
    mine.square().sum().backward()
    own.square().sum().backward()
    gradients = {name: value.grad for name, value in module.named_parameters()}
    for name, value in found.named_parameters():
        torch.testing.assert_close(value.grad, gradients[name])
    buffers = dict(module.named_buffers())
    for name, value in found.named_buffers():
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(value, buffers[name])
    found.eval()
    module.eval()
    torch.testing.assert_close(found(x), module(x))


def test_the_program_itself_is_left_alone(pair):
    _, program, x = pair
    before = {name: value.clone() for name, value in program.state_dict.items()}
    text = str(program.graph)
    found = trainable(program).train()
    found(x).sum().backward()
    with torch.no_grad():
        for value in found.parameters():
            value.add_(1)
    assert str(program.graph) == text
    assert all(program.state_dict[name].equal(value) for name, value in before.items())


def test_tied_weights_are_one_parameter(pair):
    _, program, _ = pair
    found = trainable(program)
    names = [name for name, _ in found.named_parameters(remove_duplicate=False)]
    assert {"head.weight", "tied.weight"} <= set(names)
    assert found.get_parameter("head.weight") is found.get_parameter("tied.weight")
    assert len(names) == len(list(found.parameters())) + 1


def test_modes_are_random_only_in_training(pair):
    _, program, x = pair
    found = trainable(program)
    assert found(x).equal(found(x))
    found.train()
    assert not found(x).equal(found(x))


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of run_decompositions itself
def test_decomposed_programs_train_too():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).eval()
    x = torch.randn(5, 2, 6, 6)
    program = torch.export.export(module, (x,)).run_decompositions()
    assert "no_training" in str(program.graph)
    found = trainable(program).train()
    torch.testing.assert_close(found(x), module.train()(x))
    torch.testing.assert_close(found.get_buffer("1.running_mean"), module[1].running_mean)
    found.eval()
    torch.testing.assert_close(found(x), module.eval()(x))


def test_a_norm_without_momentum_still_follows():
    module = nn.Sequential(nn.BatchNorm1d(3, momentum=None)).eval()
    x = torch.randn(50, 3) + 4
    found = trainable(torch.export.export(module, (x,))).train()
    for _ in range(100):
        found(x)
    torch.testing.assert_close(found.get_buffer("0.running_mean"), x.mean(0), rtol=1e-3, atol=1e-3)


def test_what_always_trains_is_left_so():
    class Noisy(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.dropout(x, 0.5, training=True)

    x = torch.ones(64)
    found = trainable(torch.export.export(Noisy().eval(), (x,)))
    assert (found(x) == 0).any()
