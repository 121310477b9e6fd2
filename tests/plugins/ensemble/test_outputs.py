"""Fused outputs against the members run apart in float64; what is fitted; what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from nnopt_plugins.ensemble.outputs_fit import fit_stack, fit_weights, mapped
from nnopt_plugins.ensemble.outputs_networks import (
    Combine,
    MeanGeometric,
    Meaning,
    MeanLogits,
    MeanProbabilities,
    Stack,
    Votes,
)
from torch import nn

import nnopt_cli
from nnopt_cli import Members, NnoptError, Run, Weighting
from nnopt_cli.graph import run as run_program
from nnopt_cli.plugin.manager import Wanted, load_plugins
from nnopt_cli.testing import run_command

torch.set_num_threads(1)
REGISTRY = load_plugins(Wanted(allowed=frozenset()))
NETS = """
from torch import nn

def small():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))

def deep():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.Tanh(), nn.Linear(24, 24), nn.Linear(24, 10))

def certain():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10), nn.Softmax(-1))

def few():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))

def narrow():
    return nn.Sequential(nn.Flatten(), nn.Linear(32, 10))

def values():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, 1))
"""
CLASSES = Meaning("classification", 1, (False, False, False))
LABELS = Meaning("multi-label", 1, (False, False, False))
VALUES = Meaning("regression", 1, (False, False, False))


def outputs(seed: int = 0, scale: float = 3.0) -> torch.Tensor:
    """Three members' answers for 50 samples of 4 classes."""
    return scale * torch.randn(3, 50, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def probabilities(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z))


def combined(network: Combine, z: torch.Tensor) -> np.ndarray:
    return network(list(z)).numpy()


W = np.array([0.5, 0.3, 0.2])


def test_the_mean_of_probabilities_by_the_formula():
    z = outputs()
    p = np.einsum("m,mrc->rc", W, probabilities(z.numpy()))
    np.testing.assert_allclose(combined(MeanProbabilities(CLASSES, W), z), np.log(p), atol=1e-6)
    s = np.einsum("m,mrc->rc", W, sigmoid(z.numpy()))
    np.testing.assert_allclose(combined(MeanProbabilities(LABELS, W), z), np.log(s / (1 - s)), atol=1e-5)
    v = np.einsum("m,mrc->rc", W, z.numpy())
    np.testing.assert_allclose(combined(MeanProbabilities(VALUES, W), z), v, atol=1e-6)


def test_other_means_by_their_formulas():
    z = outputs()
    mean = np.einsum("m,mrc->rc", W, z.numpy())
    np.testing.assert_allclose(combined(MeanLogits(CLASSES, W), z), mean, atol=1e-6)
    product = np.prod(probabilities(z.numpy()) ** W[:, None, None], axis=0)
    want = np.log(product / product.sum(-1, keepdims=True))
    np.testing.assert_allclose(combined(MeanGeometric(CLASSES, W), z), want, atol=1e-6)


def test_logits_far_apart_stay_finite():
    z = torch.tensor([[[900.0, -900.0]], [[-900.0, 900.0]], [[900.0, -900.0]]])
    for kind in (MeanProbabilities, MeanLogits, MeanGeometric, Votes):
        for meaning in (CLASSES, LABELS):
            assert np.isfinite(combined(kind(meaning, [1 / 3] * 3), z)).all()


def test_the_majority_wins_and_probability_decides_between_equals():
    z = outputs()
    said = z.argmax(-1).numpy()
    p = probabilities(z.numpy()).mean(0)
    found = combined(Votes(CLASSES, [1 / 3] * 3), z)
    ties = 0
    for row in range(50):
        counts = np.bincount(said[:, row], minlength=4)
        leading = np.flatnonzero(counts == counts.max())
        ties += len(leading) > 1
        assert found[row].argmax() == leading[p[row, leading].argmax()]
    assert 5 < ties < 45  # both cases are there
    np.testing.assert_allclose(np.exp(found).sum(-1), 1, atol=1e-6)
    labels = combined(Votes(LABELS, [1 / 3] * 3), z) > 0
    np.testing.assert_array_equal(labels, (z > 0).numpy().sum(0) >= 2)


def test_of_two_voters_the_surer_one_decides():
    meaning = Meaning("classification", 1, (False, False))
    z = torch.tensor([[[2.0, 0.0, 0.0]], [[0.0, 0.0, 1.0]]])
    assert combined(Votes(meaning, [0.5, 0.5]), z).argmax() == 0
    assert combined(Votes(meaning, [0.5, 0.5]), z.flip(-1)).argmax() == 2


def test_classes_in_the_last_dimension():
    z = outputs().reshape(3, 10, 5, 4)
    last = combined(MeanProbabilities(Meaning("classification", -1, (False,) * 3), W), z)
    first = combined(MeanProbabilities(CLASSES, W), z.movedim(-1, 2))
    np.testing.assert_allclose(last, np.moveaxis(first, 1, -1), atol=1e-6)
    stack = Stack(Meaning("classification", -1, (False,) * 3), torch.rand(3, 4, 4), torch.rand(4))
    other = Stack(CLASSES, stack.matrix, stack.bias)
    np.testing.assert_allclose(
        combined(stack, z), np.moveaxis(combined(other, z.movedim(-1, 2)), 1, -1), atol=1e-6
    )


def test_members_that_give_probabilities_give_probabilities_together():
    p = torch.from_numpy(probabilities(outputs().numpy()))
    found = combined(MeanProbabilities(Meaning("classification", 1, (True,) * 3), [1 / 3] * 3), p)
    np.testing.assert_allclose(found, p.mean(0).numpy(), atol=1e-6)


def test_fitted_weights_and_temperatures_are_those_that_made_the_labels():
    """Labels drawn from a known mixture: it is found again; and no other has a smaller loss."""
    draw = torch.Generator().manual_seed(0)
    z = 2 * torch.randn(2, 20_000, 3, generator=draw, dtype=torch.float64)
    truth = 0.7 * (z[0] / 2).softmax(-1) + 0.3 * z[1].softmax(-1)
    target = torch.multinomial(truth, 1, generator=draw)[:, 0]
    weights, heat = fit_weights(z, target, "classification")
    assert weights == pytest.approx([0.7, 0.3], abs=0.04)
    assert heat == pytest.approx([2.0, 1.0], abs=0.25)


def test_fitted_weights_of_values_are_least_squares():
    draw = torch.Generator().manual_seed(0)
    v = torch.randn(2, 5_000, 1, generator=draw, dtype=torch.float64)
    target = 0.8 * v[0] + 0.2 * v[1] + 0.01 * torch.randn(5_000, 1, generator=draw, dtype=torch.float64)
    weights, heat = fit_weights(v, target, "regression")
    assert weights == pytest.approx([0.8, 0.2], abs=0.01)
    assert heat == [1.0, 1.0]


def test_stacking_reads_one_class_off_another():
    """A member that confuses two classes always in the same way is right once it is stacked."""
    draw = torch.Generator().manual_seed(0)
    target = torch.randint(0, 3, (2_000,), generator=draw)
    swapped = torch.tensor([1, 0, 2])[target]
    z = 4 * nn.functional.one_hot(swapped, 3).double() + torch.randn(2_000, 3, generator=draw).double()
    noise = torch.randn(2_000, 3, generator=draw, dtype=torch.float64)
    members = torch.stack([z, noise])
    matrix, bias, _ = fit_stack(members[:, :1_000], target[:1_000], "classification", True)
    said = mapped(members[:, 1_000:].log_softmax(-1), matrix, bias).argmax(-1)
    assert float((said == target[1_000:]).double().mean()) > 0.95
    assert float((members[:, 1_000:].softmax(-1).mean(0).argmax(-1) == target[1_000:]).double().mean()) < 0.7


def test_stacking_of_noise_stays_near_the_mean():
    draw = torch.Generator().manual_seed(0)
    z = torch.randn(2, 200, 5, generator=draw, dtype=torch.float64)
    target = torch.multinomial(z.softmax(-1).mean(0), 1, generator=draw)[:, 0]
    matrix, _, penalty = fit_stack(z, target, "classification", True)
    assert penalty >= 0.1
    assert float((matrix - 0.5 * torch.eye(5)).abs().max()) < 0.5


# ---- the command


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with networks as weights and as .pt2 files."""
    folder = tmp_path_factory.mktemp("outputs")
    (folder / "nets.py").write_text(NETS)
    sys.path.insert(0, str(folder))
    import nets

    for number, name in enumerate(("small", "deep", "certain", "few", "narrow", "values")):
        torch.manual_seed(number)
        torch.save(getattr(nets, name)().state_dict(), folder / f"{name}.pt")
    sys.path.remove(str(folder))
    return folder


def ensemble(
    place: Path, *arguments: object, names: tuple[str, ...] = ("small", "deep"), size: str = "1x8x8"
):
    given = [item for name in names for item in ("--arch", f"{place}/nets.py:{name}")]
    paths = [place / f"{name}.pt" for name in names]
    return run_command("ensemble", *paths, *given, "--input", "1x8x8", "--threads", "1", *arguments)


def member(place: Path, name: str) -> nnopt_cli.Model:
    return nnopt_cli.load(place / f"{name}.pt", arch=f"{place}/nets.py:{name}", inputs="1x8x8")


def test_two_architectures_become_one_file(place: Path, tmp_path: Path):
    """Equal to the members in float64, at another batch size, in a process without any source."""
    out = tmp_path / "fused.pt2"
    done = ensemble(place, "--method", "mean", "-o", out)
    assert done.code == 0, done.stderr
    x = torch.randn(7, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    members = [
        run_program(member(place, name).program(), [x.double()], torch.float64)[0]
        for name in ("small", "deep")
    ]
    want = torch.stack(members).softmax(-1).mean(0).log()
    torch.save(x, tmp_path / "x.pt")
    code = (
        "import sys, torch; torch.set_num_threads(1); net = torch.export.load('fused.pt2').module(); "
        "torch.save(net(torch.load('x.pt')), 'y.pt'); assert 'nnopt_cli' not in sys.modules"
    )
    subprocess.run([sys.executable, "-P", "-c", code], check=True, cwd=tmp_path)
    torch.testing.assert_close(torch.load(tmp_path / "y.pt").double(), want, rtol=1e-5, atol=1e-5)
    (place / "nets.py").rename(place / "away.py")
    try:
        measured = run_command("evaluate", out, "--data", "digits:part=test", "--json")
    finally:
        (place / "away.py").rename(place / "nets.py")
    assert measured.code == 0, measured.stderr
    assert measured.json["samples"] == 360


@pytest.mark.parametrize("method", ["logits", "geometric", "vote", "weighted", "stacking"])
def test_every_method_writes_a_network(place: Path, tmp_path: Path, method: str):
    out = tmp_path / "fused.pt2"
    done = ensemble(place, "--method", method, "--data", "digits", "--limit", "200", "-o", out, "--json")
    assert done.code == 0, done.stderr
    program = nnopt_cli.load(out).program()
    with torch.no_grad():
        assert program.module()(torch.randn(3, 1, 8, 8)).isfinite().all()


def test_a_fused_network_goes_to_onnx(place: Path, tmp_path: Path):
    onnxruntime = pytest.importorskip("onnxruntime")
    from nnopt_cli.graph import to_onnx

    members = Members(tuple(member(place, name) for name in ("small", "deep")))
    run = Run(registry=REGISTRY)
    x = torch.randn(3, 1, 8, 8)
    for name in ("mean", "vote"):
        program = REGISTRY.build("fusion", name).fuse(members, run).program()
        to_onnx(program, tmp_path / f"{name}.onnx")
        session = onnxruntime.InferenceSession(tmp_path / f"{name}.onnx", providers=["CPUExecutionProvider"])
        (got,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        with torch.no_grad():
            np.testing.assert_allclose(got, program.module()(x).numpy(), atol=1e-5)


def test_weights_count(place: Path):
    members = Members(tuple(member(place, name) for name in ("small", "deep")), Weighting((1.0, 0.0)))
    program = REGISTRY.build("fusion", "mean").fuse(members, Run(registry=REGISTRY)).program()
    x = torch.randn(4, 1, 8, 8)
    with torch.no_grad():
        want = member(place, "small").module()(x).log_softmax(-1)
        torch.testing.assert_close(program.module()(x), want)


def test_a_member_that_ends_in_a_softmax(place: Path):
    members = Members(tuple(member(place, name) for name in ("small", "certain")))
    program = REGISTRY.build("fusion", "mean").fuse(members, Run(registry=REGISTRY)).program()
    x = torch.randn(4, 1, 8, 8)
    with torch.no_grad():
        want = (member(place, "small").module()(x).softmax(-1) + member(place, "certain").module()(x)) / 2
        torch.testing.assert_close(program.module()(x), want.log())


def test_values_are_averaged(place: Path):
    run = Run(registry=REGISTRY)
    one = member(place, "values")
    other = one.map(lambda name, tensor: tensor + 0.1)
    program = REGISTRY.build("fusion", "mean").fuse(Members((one, other)), run).program()
    x = torch.randn(4, 1, 8, 8)
    with torch.no_grad():
        want = (one.module()(x) + other.module()(x)) / 2
        torch.testing.assert_close(program.module()(x), want)
    assert any("taken as values" in note for note in run.notes)


@pytest.mark.parametrize(
    ("arguments", "names", "said"),
    [
        (("--method", "mean"), ("small", "few"), "[any, 10], and few.pt of shape [any, 3]"),
        (("--method", "stacking"), ("small", "deep"), "needs data"),
        (("--method", "vote"), ("values", "values"), "regression"),
        (("--method", "mean", "--weights", "-0.5,1.5"), ("small", "deep"), "negative"),
        (("--method", "mean", "--weights", "0.5,0.6"), ("small", "deep"), "sums to 1.1"),
        (("--method", "mean", "--share-trunk", "9"), ("small", "small"), "has 2 layers"),
        (("--method", "mean", "--share-trunk", "1"), ("small", "deep"), "different architectures"),
        (("--method", "mean", "--share-trunk", "auto"), ("small", "small"), "decided by a metric"),
        (
            (
                "--method",
                "mean:task=labels",
            ),
            ("small", "deep"),
            "labels",
        ),
    ],
)
def test_what_does_not_fit_is_refused(place: Path, tmp_path: Path, arguments, names, said):
    out = tmp_path / "fused.pt2"
    done = ensemble(place, *arguments, "-o", out, names=names)
    assert done.code in (1, 2)
    assert said in " ".join(done.stderr.split())
    assert not out.exists()


def test_inputs_that_differ_are_named(place: Path):
    one, two = (
        member(place, "small"),
        nnopt_cli.load(place / "narrow.pt", arch=f"{place}/nets.py:narrow", inputs="1x4x8"),
    )
    with pytest.raises(NnoptError, match=r"\[N,1,8,8\], and of narrow.pt \[N,1,4,8\]"):
        REGISTRY.build("fusion", "mean").check(Members((one, two)))
