"""Each schedule follows PyTorch's over a whole run; where PyTorch's differ, a test says how."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch.optim import lr_scheduler as theirs

from nnopt_cli import LearningRateSchedule, UsageError
from nnopt_cli.plugin.manager import Wanted, load_plugins

REGISTRY = load_plugins(Wanted(allowed=frozenset()))
NAMES = REGISTRY.names("learning-rate-schedule")
EPOCHS, PER_EPOCH = 12, 7
TOTAL = EPOCHS * PER_EPOCH


def make(spec: str) -> LearningRateSchedule:
    found = REGISTRY.build("learning-rate-schedule", spec)
    assert isinstance(found, LearningRateSchedule)
    return found


def factors(spec: str, total: int = TOTAL, per_epoch: int = PER_EPOCH) -> list[float]:
    return [make(spec).factor(step, total, per_epoch) for step in range(total)]


def pytorch(build, per_epoch: bool, lr: float = 1.0) -> list[float]:
    """PyTorch's rate in every step of a run, with its scheduler stepped after each epoch or each step."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler, out = build(optimizer), []
    for step in range(TOTAL):
        out.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if not per_epoch or (step + 1) % PER_EPOCH == 0:
            scheduler.step()
    return out


SAME = {
    "constant": (lambda o: theirs.ConstantLR(o, factor=1.0), True),
    "step:every=3,gamma=0.5": (lambda o: theirs.StepLR(o, 3, gamma=0.5), True),
    "step:every=0.25": (lambda o: theirs.StepLR(o, EPOCHS // 4, gamma=0.1), True),
    "multi-step:milestones=[2,5,9],gamma=0.3": (lambda o: theirs.MultiStepLR(o, [2, 5, 9], gamma=0.3), True),
    "multi-step": (lambda o: theirs.MultiStepLR(o, [EPOCHS // 2, EPOCHS * 3 // 4]), True),
    "exponential:gamma=0.8": (lambda o: theirs.ExponentialLR(o, 0.8 ** (1 / PER_EPOCH)), False),
    "time-based:decay=0.3": (lambda o: theirs.LambdaLR(o, lambda s: 1 / (1 + 0.3 * s / PER_EPOCH)), False),
    "polynomial": (lambda o: theirs.PolynomialLR(o, TOTAL, power=1.0), False),
    "polynomial:power=0.9": (lambda o: theirs.PolynomialLR(o, TOTAL, power=0.9), False),
    "polynomial:end=0.1": (lambda o: theirs.LinearLR(o, 1.0, 0.1, TOTAL), False),
    "cosine": (lambda o: theirs.CosineAnnealingLR(o, TOTAL), False),
    "cosine:end=0.05": (lambda o: theirs.CosineAnnealingLR(o, TOTAL, eta_min=0.05), False),
    "cosine-restarts": (lambda o: theirs.CosineAnnealingWarmRestarts(o, PER_EPOCH, 2), False),
    "cosine-restarts:period=2,growth=1,end=0.1": (
        lambda o: theirs.CosineAnnealingWarmRestarts(o, 2 * PER_EPOCH, 1, eta_min=0.1),
        False,
    ),
    "cosine-restarts:period=0.1,growth=3": (
        lambda o: theirs.CosineAnnealingWarmRestarts(o, round(TOTAL / 10), 3),
        False,
    ),
    "one-cycle": (lambda o: theirs.OneCycleLR(o, 1.0, total_steps=TOTAL, cycle_momentum=False), False),
    "one-cycle:rise=0.2,start=10,end=100,shape=line": (
        lambda o: theirs.OneCycleLR(
            o,
            1.0,
            total_steps=TOTAL,
            pct_start=0.2,
            div_factor=10,
            final_div_factor=100,
            anneal_strategy="linear",
            cycle_momentum=False,
        ),
        False,
    ),
}


@pytest.mark.parametrize("spec", SAME)
def test_a_run_is_that_of_pytorch(spec):
    assert factors(spec) == pytest.approx(pytorch(*SAME[spec]), rel=1e-12, abs=1e-14)


def test_every_schedule_is_compared():
    assert {make(spec).name for spec in SAME} | {"reduce-on-plateau"} == set(NAMES)


def test_exponential_decay_has_pytorch_s_values_at_the_start_of_epochs():
    ours, stepped = factors("exponential:gamma=0.8"), pytorch(lambda o: theirs.ExponentialLR(o, 0.8), True)
    assert ours[::PER_EPOCH] == pytest.approx(stepped[::PER_EPOCH], rel=1e-12)
    assert ours[1] < stepped[1]  # ours falls within the epoch too


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("total", "per_epoch"), [(1, 1), (2, 1), (3, 3), (5, 4), (10, 100), (1000, 1)])
def test_any_length_of_training(name, total, per_epoch):
    got = factors(name, total, per_epoch)
    assert all(math.isfinite(f) and 0 <= f <= 1 for f in got)
    assert max(got) > 0
    make(name).factor(total + 5, total, per_epoch)  # a run that was made longer


@pytest.mark.parametrize("name", NAMES)
def test_a_factor_depends_on_the_step_alone(name):
    schedule = make(name)
    backwards = [schedule.factor(step, TOTAL, PER_EPOCH) for step in reversed(range(TOTAL))]
    assert backwards[::-1] == factors(name)


@pytest.mark.parametrize(
    ("spec", "formula"),
    [
        ("step:every=2,gamma=0.5", lambda e, x: 0.5 ** math.floor(e / 2 + 1e-9)),
        ("multi-step:milestones=[0.5,0.75]", lambda e, x: 0.1 ** ((x >= 0.5) + (x >= 0.75))),
        ("exponential:gamma=0.7", lambda e, x: 0.7**e),
        ("time-based:decay=2", lambda e, x: 1 / (1 + 2 * e)),
        ("polynomial:power=3,end=0.1", lambda e, x: 0.1 + 0.9 * (1 - x) ** 3),
        ("cosine:end=0.2", lambda e, x: 0.2 + 0.8 * (1 + math.cos(math.pi * x)) / 2),
    ],
)
def test_the_formulas(spec, formula):
    wanted = [formula(step / PER_EPOCH, step / TOTAL) for step in range(TOTAL)]
    assert factors(spec) == pytest.approx(wanted, rel=1e-12)


def test_restarts_are_where_the_paper_has_them():
    got = factors("cosine-restarts:period=1,growth=2", 15 * 10, 10)  # periods of 1, 2, 4 and 8 epochs
    assert [step for step, factor in enumerate(got) if factor == 1.0] == [0, 10, 30, 70]


def test_one_cycle_rises_to_one_and_ends_far_below_its_start():
    got = factors("one-cycle", 1001, 10)
    assert got[0] == pytest.approx(1 / 25)
    assert max(got) == pytest.approx(1.0, abs=1e-4)
    assert got[-1] == pytest.approx(1 / 25 / 1e4)


def plateau(figures, larger, **options):
    """Ours and PyTorch's factors after each figure."""
    ours = REGISTRY.build("learning-rate-schedule", {"name": "reduce-on-plateau", **options})
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = theirs.ReduceLROnPlateau(
        optimizer,
        "max" if larger else "min",
        factor=ours.gamma,
        patience=ours.patience,
        threshold=ours.threshold,
        cooldown=ours.cooldown,
        min_lr=ours.least,
        eps=0.0,
    )
    state, out = {}, []
    for figure in figures:
        scheduler.step(figure)
        got = ours.update(state, figure, larger)
        state = json.loads(json.dumps(state, allow_nan=False))  # what a checkpoint makes of it
        out.append((got, optimizer.param_groups[0]["lr"]))
    return out


@pytest.mark.parametrize("larger", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"patience": 0, "gamma": 0.5},
        {"patience": 1, "cooldown": 3, "gamma": 0.3},
        {"threshold": 0.05, "gamma": 0.5, "least": 0.2, "patience": 1},
        {"threshold": 0.0},
    ],
)
def test_plateaus_are_found_as_pytorch_finds_them(larger, options):
    generator = torch.Generator().manual_seed(1)
    figures = (torch.rand(80, generator=generator).cummin(0).values + 0.1).tolist()
    figures = [1 - f if larger else f for f in figures]
    figures[5] = figures[40] = math.nan
    pairs = plateau(figures, larger, **options)
    for got, wanted in pairs:
        assert got == pytest.approx(wanted, rel=1e-12)
    assert pairs[-1][0] < 1


def test_a_plateau_of_negative_figures():
    """Relative to a negative best, PyTorch's threshold turns round: staying the same improves."""
    pairs = plateau([-1.0] * 10, True, patience=2)
    assert [theirs for _, theirs in pairs][-1] == 1.0
    assert [ours for ours, _ in pairs] == pytest.approx([1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01, 0.001])


def test_a_first_figure_that_is_no_number():
    pairs = plateau([math.nan, 0.5, 0.4, math.nan], False, patience=5)
    assert pairs == [(1.0, 1.0)] * 4


def test_only_the_plateau_goes_by_the_metric():
    assert {name for name in NAMES if make(name).on_metric} == {"reduce-on-plateau"}
    assert make("cosine").update({}, 0.1, True) == 1.0


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("step:every=0", "every"),
        ("step:gamma=2", "gamma"),
        ("multi-step:milestones=[]", "milestones"),
        ("multi-step:milestones=[-1]", "milestones"),
        ("exponential:gamma=0", "gamma"),
        ("one-cycle:rise=1", "rise"),
        ("cosine:end=2", "end"),
        ("cosine-restarts:growth=0", "growth"),
        ("reduce-on-plateau:patience=-1", "patience"),
        ("cosin", "Did you mean|there is no"),
    ],
)
def test_what_cannot_be(spec, message):
    with pytest.raises(UsageError, match=message):
        make(spec)
