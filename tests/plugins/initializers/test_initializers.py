"""Each initializer draws what `torch.nn.init` draws, and the variance that its formula promises."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import init

from nnopt_cli import Initializer, NnoptError, UsageError
from nnopt_cli.plugin.manager import Wanted, load_plugins

REGISTRY = load_plugins(Wanted(allowed=frozenset()))
NAMES = REGISTRY.names("initializer")
WITH_FANS = ("glorot-uniform", "glorot-normal", "he-uniform", "he-normal")
SHAPES = ((400, 300), (60, 40, 5, 5), (48, 1, 9, 9), (200, 90, 7))  # linear, conv, depthwise, 1-D conv


def make(spec: str) -> Initializer:
    found = REGISTRY.build("initializer", spec)
    assert isinstance(found, Initializer)
    return found


def drawn(spec: str, shape, seed: int = 0, dtype=torch.float32) -> torch.Tensor:
    tensor = torch.full(shape, math.nan, dtype=dtype)
    make(spec).fill(tensor, torch.Generator().manual_seed(seed))
    return tensor


SAME = {
    "uniform:a=0.3": lambda t, g: init.uniform_(t, -0.3, 0.3, generator=g),
    "normal:std=0.2": lambda t, g: init.normal_(t, 0, 0.2, generator=g),
    "glorot-uniform:gain=2": lambda t, g: init.xavier_uniform_(t, 2, generator=g),
    "glorot-normal": lambda t, g: init.xavier_normal_(t, generator=g),
    "he-uniform:mode=fan-out": lambda t, g: init.kaiming_uniform_(t, mode="fan_out", generator=g),
    "he-normal:slope=0.2": lambda t, g: init.kaiming_normal_(t, 0.2, generator=g),
    "orthogonal:gain=3": lambda t, g: init.orthogonal_(t, 3, generator=g),
    "truncated-normal:std=0.5": lambda t, g: init.trunc_normal_(t, 0, 0.5, -1, 1, generator=g),
}


@pytest.mark.parametrize("spec", SAME)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_are_those_of_pytorch(spec, dtype):
    for shape in ((30, 20), (8, 6, 3, 3)):
        wanted = SAME[spec](torch.empty(shape, dtype=dtype), torch.Generator().manual_seed(0))
        assert torch.equal(drawn(spec, shape, dtype=dtype), wanted)


def test_every_initializer_is_compared():
    assert {make(spec).name for spec in SAME} == set(NAMES)


def fans(shape):
    """Inputs of one output and outputs of one input, counted by hand."""
    positions = math.prod(shape[2:])
    return shape[1] * positions, shape[0] * positions


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(
    ("spec", "variance"),
    [
        ("glorot-uniform", lambda i, o: 2 / (i + o)),
        ("glorot-normal", lambda i, o: 2 / (i + o)),
        ("glorot-normal:gain=1.5", lambda i, o: 1.5**2 * 2 / (i + o)),
        ("he-uniform", lambda i, o: 2 / i),
        ("he-normal", lambda i, o: 2 / i),
        ("he-normal:mode=fan-out", lambda i, o: 2 / o),
        ("he-uniform:slope=0.5", lambda i, o: 2 / (1.25 * i)),
        ("uniform:a=0.1", lambda i, o: 0.01 / 3),
        ("normal:std=0.3", lambda i, o: 0.09),
    ],
)
def test_variance_is_that_of_the_formula(spec, variance, shape):
    values = drawn(spec, shape, dtype=torch.float64)
    wanted, count = variance(*fans(shape)), values.numel()
    assert abs(values.mean()) < 5 * math.sqrt(wanted / count)
    kurtosis = 1.8 if "uniform" in spec or spec.startswith("uniform") else 3.0
    spread = wanted * math.sqrt((kurtosis - 1) / count)  # deviation of a sample's variance
    assert abs(values.var() - wanted) < 5 * spread
    if kurtosis == 1.8:
        assert values.abs().max() <= math.sqrt(3 * wanted)
        assert values.abs().max() > 0.98 * math.sqrt(3 * wanted)


def test_a_truncated_normal_has_no_tails():
    values = drawn("truncated-normal:std=0.1,cut=2", (300, 300), dtype=torch.float64)
    assert values.abs().max() <= 0.2
    assert values.std() == pytest.approx(0.0880, abs=5e-4)  # sqrt(1 - 4 phi(2) / (2 Phi(2) - 1)) times std
    wide = drawn("truncated-normal:std=0.1,cut=6", (300, 300), dtype=torch.float64)
    assert wide.std() == pytest.approx(0.1, abs=1e-3)


@pytest.mark.parametrize("shape", [(20, 50), (50, 20), (16, 4, 3, 3), (30, 1, 3, 3)], ids=str)
def test_orthogonal_rows_or_columns(shape):
    rows = drawn("orthogonal:gain=2", shape, dtype=torch.float64).flatten(1)
    product = rows @ rows.T if len(rows) <= rows.shape[1] else rows.T @ rows
    assert torch.allclose(product, 4 * torch.eye(len(product), dtype=torch.float64), atol=1e-12)


def test_the_rules_keep_the_size_of_signals():
    """What they are for: through 20 layers of ReLU He's signals keep their size, and Glorot's vanish."""

    def size_after(spec: str) -> float:
        x = torch.randn(64, 256, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
        for layer in range(20):
            x = (x @ drawn(spec, (256, 256), layer, torch.float64).T).relu()
        return x.square().mean().item()

    assert 0.1 < size_after("he-normal") < 10
    assert 0.1 < size_after("he-uniform") < 10
    assert size_after("glorot-normal") < 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_chance_is_the_generator_s_alone(name):
    torch.manual_seed(1)
    first = drawn(name, (6, 5))
    torch.manual_seed(2)
    assert torch.equal(drawn(name, (6, 5)), first)
    assert not torch.equal(drawn(name, (6, 5), seed=1), first)
    before = torch.get_rng_state()
    drawn(name, (6, 5))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_short_types_get_the_rounded_values(name, dtype):
    assert torch.equal(drawn(name, (6, 5), dtype=dtype), drawn(name, (6, 5)).to(dtype))


@pytest.mark.parametrize("name", NAMES)
def test_a_parameter_is_filled_in_place_whatever_its_layout(name):
    whole = torch.nn.Parameter(torch.zeros(5, 8))
    part = whole.data.T  # not contiguous
    make(name).fill(part, torch.Generator().manual_seed(0))
    assert torch.equal(part, drawn(name, (8, 5)))
    assert torch.equal(whole.data.T, part)
    place = whole.data_ptr()
    make(name).fill(whole, torch.Generator().manual_seed(0))
    assert whole.data_ptr() == place
    assert whole.grad_fn is None
    make(name).fill(torch.empty(0, 4), torch.Generator())


@pytest.mark.parametrize("name", [*WITH_FANS, "orthogonal"])
def test_vectors_have_no_fans(name):
    with pytest.raises(NnoptError, match=rf"{name}.*two or more dimensions.*\[7\]"):
        drawn(name, (7,))


def test_underscores_are_read_as_dashes():
    assert make("he_normal") == make("he-normal")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("uniform:a=0", "a '0'"),
        ("normal:std=-1", "std"),
        ("normal:std=inf", "std"),
        ("he-normal:mode=fan", "mode"),
        ("glorot-normal:gain=0", "gain"),
        ("xavier", "there is no initializer"),
    ],
)
def test_what_cannot_be(spec, message):
    with pytest.raises(UsageError, match=message):
        make(spec)
