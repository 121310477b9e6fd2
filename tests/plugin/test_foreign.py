"""Optimizers and losses that are written as PyTorch's are, by `code:`."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nnopt_cli import UsageError
from nnopt_cli.plugin.fields import schema_of
from nnopt_cli.plugin.manager import Wanted, load_plugins

CODE = '''
import torch
from torch import nn

class Sign(torch.optim.Optimizer):
    """Steps of one length."""

    def __init__(self, params, lr, *, scale: float = 1.0, word="a"):
        super().__init__(params, dict(lr=lr, scale=scale))

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for value in group["params"]:
                value.sub_(value.grad.sign(), alpha=group["lr"] * group["scale"])

class Named(Sign):
    def __init__(self, params, lr=0.1, name="x"):
        super().__init__(params, lr)

class Twice(Sign):
    def step(self, closure):
        closure()

class Focal(nn.Module):
    """The focal loss."""

    def __init__(self, gamma=2.0):
        super().__init__()
        self.gamma = gamma

    def forward(self, outputs, target):
        each = nn.functional.cross_entropy(outputs, target, reduction="none")
        return ((1 - (-each).exp()) ** self.gamma * each).mean()

def power(outputs, target, exponent=2):
    return (outputs - target).abs().pow(exponent).mean()

def rows(outputs, target):
    return (outputs - target).mean(1)

def positional(outputs, target, exponent, /):
    return outputs
'''


@pytest.fixture(scope="module")
def registry():
    return load_plugins(Wanted(allowed=frozenset()))


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    out = tmp_path_factory.mktemp("code") / "mine.py"
    out.write_text(CODE)
    return out


def stepped(optimizer: torch.optim.Optimizer, value: nn.Parameter) -> torch.Tensor:
    for _ in range(3):
        value.grad = value.detach().clone()
        optimizer.step()
    return value.detach()


@pytest.mark.parametrize(
    ("spec", "build"),
    [
        ("code:torch.optim:Adafactor:lr=0.1", lambda p: torch.optim.Adafactor(p, lr=0.1)),
        ("code:torch.optim:SGD:lr=0.2,momentum=0.9", lambda p: torch.optim.SGD(p, lr=0.2, momentum=0.9)),
        ("code:torch.optim:Adam:betas=[0.5,0.9]", lambda p: torch.optim.Adam(p, lr=1e-3, betas=(0.5, 0.9))),
        ("code:torch.optim:ASGD", torch.optim.ASGD),
    ],
)
def test_any_class_of_pytorch(registry, spec, build):
    component = registry.build("optimizer", spec, allow_code=True)
    ours, theirs = (nn.Parameter(torch.arange(1.0, 7.0).reshape(2, 3)) for _ in range(2))
    made = component.build([{"params": [ours]}], component.lr)
    assert torch.equal(stepped(made, ours), stepped(build([theirs]), theirs))
    assert registry.build("optimizer", component.table(), allow_code=True) == component
    assert registry.build("optimizer", component.spec(), allow_code=True) == component
    assert not component.closure


def test_a_class_of_one_s_own(registry, path):
    component = registry.build("optimizer", f"code:{path}:Sign:scale=3", allow_code=True)
    value = nn.Parameter(torch.tensor([1.0, -1.0]))
    made = component.build([{"params": [value]}], 0.1)
    assert stepped(made, value).tolist() == pytest.approx([0.1, -0.1])
    assert component.lr == 1e-3  # the class has no default
    assert component.table() == {"name": f"code:{path}:Sign", "scale": 3.0}
    assert set(schema_of(type(component))["properties"]) == {"lr", "scale", "word"}
    assert type(component).__doc__ == "Steps of one length."


def test_a_step_that_needs_a_closure_sees_the_whole_data(registry, path):
    for spec in (f"code:{path}:Twice", "code:torch.optim:LBFGS"):
        component = registry.build("optimizer", spec, allow_code=True)
        assert component.closure
        assert component.full_batch
    groups = [
        {"params": [nn.Parameter(torch.ones(1))]},
        {"params": [nn.Parameter(torch.ones(1))], "weight_decay": 0.0},
    ]
    assert len(component.build(groups, 0.5).param_groups[0]["params"]) == 2  # LBFGS takes no groups


def test_losses_as_modules_and_as_functions(registry, path):
    logits, target = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    values = torch.randn(6, 4)
    smooth = registry.build("loss", "code:torch.nn:SmoothL1Loss:beta=2", allow_code=True)
    assert torch.equal(smooth(logits, values), nn.functional.smooth_l1_loss(logits, values, beta=2))
    focal = registry.build("loss", f"code:{path}:Focal:gamma=0", allow_code=True)
    assert torch.allclose(focal(logits, target), nn.functional.cross_entropy(logits, target))
    power = registry.build("loss", f"code:{path}:power:exponent=1", allow_code=True)
    assert torch.allclose(power(logits, values), nn.functional.l1_loss(logits, values))
    for component in (smooth, focal, power):
        assert registry.build("loss", component.spec(), allow_code=True) == component


@pytest.mark.parametrize(
    ("kind", "spec", "message"),
    [
        ("optimizer", "code:torch.optim:Adamm", "there is no 'Adamm'"),
        ("optimizer", "code:torch.nn:Linear", "not of kind optimizer"),
        ("optimizer", "code:torch.optim:SGD:momentun=1", "no option 'momentun'"),
        ("optimizer", "code:torch.optim:SGD:lr=fast", "lr"),
        ("optimizer", "code:PATH:Named", "'name' hides"),
        ("loss", "code:torch:zeros", "not of kind loss"),
        ("loss", "code:PATH:positional", "cannot be given by name"),
        ("initializer", "code:torch.nn:Linear", "not of kind initializer"),
    ],
)
def test_what_cannot_be(registry, path, kind, spec, message):
    with pytest.raises(UsageError, match=message):
        registry.build(kind, spec.replace("PATH", str(path)), allow_code=True)


def test_what_the_class_refuses_is_told(registry):
    component = registry.build("optimizer", "code:torch.optim:SGD:nesterov=true", allow_code=True)
    with pytest.raises(UsageError, match="Nesterov momentum requires"):
        component.build([{"params": [nn.Parameter(torch.zeros(1))]}], 0.1)
    component = registry.build("optimizer", "code:torch.optim:Muon", allow_code=True)
    with pytest.raises(UsageError, match="2D"):
        component.build([{"params": [nn.Parameter(torch.zeros(1))]}], 0.1)


def test_a_loss_that_is_not_one_number_is_told(registry, path):
    loss = registry.build("loss", f"code:{path}:rows", allow_code=True)
    with pytest.raises(UsageError, match=r"\[6\], not one number"):
        loss(torch.zeros(6, 2), torch.zeros(6, 2))


def test_code_is_not_followed_where_it_may_not(registry):
    with pytest.raises(UsageError, match="refers to code"):
        registry.build("optimizer", "code:torch.optim:SGD")
