"""Figures of an evaluation against scikit-learn's, and against plain arithmetic."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import sklearn.metrics as reference
import torch
from data_models import model_of, options, run
from torch import nn

from nnopt_cli import NnoptError
from nnopt_cli.data import (
    Contestant,
    Numbers,
    Table,
    Task,
    evaluate,
    evaluate_all,
    main_output,
    measure,
    score,
)
from nnopt_cli.data.opening import Wanted, opened
from nnopt_cli.plugin.data import losses, metrics
from nnopt_cli.plugin.manager import Wanted as Plugins
from nnopt_cli.plugin.manager import load_plugins

DRAW = np.random.default_rng(0)


def evaluated(outputs: np.ndarray, target: np.ndarray, kind: str, batch: int = 7, detail: bool = False):
    """Outputs as the data of an identity, measured in batches."""
    registry = load_plugins(Plugins(allowed=frozenset()))
    task = Task(kind, outputs.shape[1] if outputs.ndim > 1 else 1)
    table = Table({"x": Numbers(outputs.astype(np.float32)), "y": Numbers(target)})
    made = opened(table, wanted=Wanted(batch_size=batch))
    made = replace(made, assembly=replace(made.assembly, task=task))
    chosen = [metric for metric in metrics(registry, task) if detail or not metric.detail]
    return evaluate(nn.Identity(), made, task=task, loss=losses(registry, kind), metrics=chosen)


def test_classification_is_what_scikit_learn_says():
    logits = DRAW.normal(size=(200, 8)) * 2
    target = DRAW.integers(0, 8, 200)
    found = evaluated(logits, target, "classification", detail=True)
    said = logits.argmax(1)
    shares = torch.tensor(logits).softmax(1).numpy()
    labels = list(range(8))
    assert found.samples == 200
    assert found.metrics["accuracy"] == pytest.approx(reference.accuracy_score(target, said))
    assert found.metrics["top-5"] == pytest.approx(reference.top_k_accuracy_score(target, shares, k=5))
    assert found.metrics["f1"] == pytest.approx(reference.f1_score(target, said, average="macro"))
    want = reference.log_loss(target, shares, labels=labels)
    assert found.metrics["nll"] == pytest.approx(want, rel=1e-5)
    assert found.loss == pytest.approx(want, rel=1e-5)
    assert found.metrics["ece"] == pytest.approx(calibration_error(shares, target, 15), abs=1e-5)
    for name, score_of in (("precision", reference.precision_score), ("recall", reference.recall_score)):
        assert found.per_class[name] == pytest.approx(list(score_of(target, said, average=None)))
    assert found.matrices["confusion"] == reference.confusion_matrix(target, said).tolist()


def calibration_error(shares: np.ndarray, target: np.ndarray, bins: int) -> float:
    """Guo et al. 2017, equation 3, written out."""
    confidence, right = shares.max(1), shares.argmax(1) == target
    edges = np.linspace(0, 1, bins + 1)
    total = 0.0
    for low, high in pairwise(edges):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return total


def test_logits_between_0_and_1_are_logits():
    logits = DRAW.random((100, 4))
    target = DRAW.integers(0, 4, 100)
    shares = torch.tensor(logits).softmax(1).numpy()
    found = evaluated(logits, target, "classification")
    assert found.metrics["ece"] == pytest.approx(calibration_error(shares, target, 15), abs=1e-5)
    assert found.metrics["nll"] == pytest.approx(
        reference.log_loss(target, shares, labels=range(4)), rel=1e-5
    )


@pytest.mark.parametrize("width", [1, 3])
def test_regression_is_what_scikit_learn_says(width):
    said, true = DRAW.normal(size=(90, width)) + 1000, DRAW.normal(size=(90, width)) + 1000
    said, true = said.astype(np.float32), true.astype(np.float32)
    found = evaluated(said, true, "regression")
    assert found.metrics["r2"] == pytest.approx(reference.r2_score(true, said), abs=1e-4)
    assert found.metrics["mse"] == pytest.approx(reference.mean_squared_error(true, said), rel=1e-5)
    assert found.metrics["mae"] == pytest.approx(reference.mean_absolute_error(true, said), rel=1e-5)
    assert found.loss == pytest.approx(found.metrics["mse"], rel=1e-5)


def test_labels_are_what_scikit_learn_says():
    logits = DRAW.normal(size=(150, 5))
    true = DRAW.integers(0, 2, (150, 5))
    found = evaluated(logits, true, "multi-label", detail=True)
    said = (logits > 0).astype(int)
    assert found.metrics["label-f1"] == pytest.approx(reference.f1_score(true, said, average="macro"))
    assert found.metrics["label-accuracy"] == pytest.approx((said == true).mean())
    assert found.metrics["exact-match"] == pytest.approx(reference.accuracy_score(true, said))
    precise = reference.average_precision_score(true, logits, average="macro")
    assert found.metrics["map"] == pytest.approx(precise, abs=0.02)  # from 200 thresholds
    assert found.per_class["each-label-f1"] == pytest.approx(
        list(reference.f1_score(true, said, average=None))
    )


def test_a_single_label_is_binary():
    logits, true = DRAW.normal(size=(80, 1)), DRAW.integers(0, 2, 80)
    found = evaluated(logits, true, "multi-label")
    said = (logits[:, 0] > 0).astype(int)
    assert found.metrics["label-f1"] == pytest.approx(reference.f1_score(true, said))
    assert found.metrics["exact-match"] == pytest.approx((said == true).mean())


@pytest.mark.parametrize("batch", [1, 3, 200])
def test_figures_do_not_depend_on_the_batch_size(batch):
    logits = np.random.default_rng(3).normal(size=(100, 6))
    target = np.random.default_rng(4).integers(0, 6, 100)
    found = evaluated(logits, target, "classification", batch)
    want = evaluated(logits, target, "classification", 10)
    assert found.metrics == pytest.approx(want.metrics, rel=1e-5)
    assert found.loss == pytest.approx(want.loss, rel=1e-6)


def test_models_side_by_side_disagree_as_counted_by_hand():
    x = DRAW.normal(size=(60, 4)).astype(np.float32)
    y = DRAW.integers(0, 4, 60)
    made = opened(Table({"x": Numbers(x), "y": Numbers(y)}), wanted=Wanted(batch_size=9))
    calls = [nn.Identity(), lambda t: -t, lambda t: t.roll(1, 1)]
    task = Task("classification", 4)
    found = evaluate_all([Contestant(call) for call in calls], made, task=task, loss=None, metrics=[])
    said = [call(torch.from_numpy(x)).argmax(1).numpy() for call in calls]
    for i in range(3):
        for j in range(3):
            assert found.disagreement[i][j] == pytest.approx((said[i] != said[j]).mean())
            want = 0 if i == j else ((said[i] == y) & (said[j] != y)).sum()
            assert found.wins[i][j] == want
    assert found.models[0].loss is None
    values = opened(Table({"x": Numbers(x), "y": Numbers(x)}), wanted=Wanted(batch_size=9))
    pair = [Contestant(call) for call in calls[:2]]
    far = evaluate_all(pair, values, task=Task("regression", 4), loss=None, metrics=[])
    assert far.disagreement[0][1] == pytest.approx(np.sqrt((4 * x.astype(np.float64) ** 2).mean()), rel=1e-6)


def test_outputs_of_every_form():
    logits = torch.zeros(2, 3)
    for outputs in (
        logits,
        (logits, "rest"),
        [logits],
        {"logits": logits, "loss": 1},
        {"first": logits},
        {"hidden": torch.ones(1), "out": logits},
        ({"logits": logits},),
    ):
        assert main_output(outputs) is logits
    for nothing in ("text", None, 3, [], {}):
        with pytest.raises(NnoptError, match="output"):
            main_output(nothing)


def test_score_is_larger_for_better(tmp_path):
    x = DRAW.normal(size=(40, 3)).astype(np.float32)
    np.savez(tmp_path / "d.npz", x=x, y=x.sum(1))
    model = model_of(tmp_path, lambda: nn.Linear(3, 1))
    for metric in ("r2", "mse", "mae"):
        data = options(data=str(tmp_path / "d.npz"), metric=metric).open(run(), model)
        perfect = nn.Linear(3, 1)
        nn.init.ones_(perfect.weight)
        nn.init.zeros_(perfect.bias)
        assert score(perfect, data, run()) > score(model.module(), data, run())


def test_a_program_scores_as_its_module(tmp_path):
    x = DRAW.normal(size=(40, 3)).astype(np.float32)
    np.savez(tmp_path / "d.npz", x=x, y=np.arange(40) % 4)
    model = model_of(tmp_path, lambda: nn.Linear(3, 4), "float32[N,3]")
    data = options(data=str(tmp_path / "d.npz")).open(run(), model)
    assert score(model.program(), data, run()) == score(model.module(), data, run())
    assert measure(model.program(), data, run()).loss == pytest.approx(
        measure(model.module(), data, run()).loss
    )


def test_a_loss_of_ones_own_and_a_metric(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from nnopt_cli import Loss, Metric\n"
        "class Focal(Loss):\n"
        "    '''Focal loss.'''\n"
        "    def __call__(self, outputs, target):\n"
        "        from torch.nn.functional import cross_entropy\n"
        "        each = cross_entropy(outputs, target, reduction='none')\n"
        "        return ((1 - (-each).exp()) ** 2 * each).mean()\n"
        "class Largest(Metric):\n"
        "    '''The largest output.'''\n"
        "    def build(self, task):\n"
        "        return Tally()\n"
        "class Tally:\n"
        "    best = None\n"
        "    def update(self, outputs, target):\n"
        "        top = outputs.max()\n"
        "        self.best = top if self.best is None else max(self.best, top)\n"
        "    def compute(self):\n"
        "        return self.best\n"
    )
    x = DRAW.normal(size=(30, 4)).astype(np.float32)
    np.savez(tmp_path / "d.npz", x=x, y=np.arange(30) % 4)
    model = model_of(tmp_path, lambda: nn.Linear(4, 4))
    code = f"code:{tmp_path / 'mine.py'}"
    data = options(data=str(tmp_path / "d.npz"), loss=f"{code}:Focal", metric=f"{code}:Largest").open(
        run(), model
    )
    found = measure(model.module(), data, run())
    with torch.no_grad():
        out = model.module()(torch.from_numpy(x))
    each = nn.functional.cross_entropy(out, torch.arange(30) % 4, reduction="none")
    assert found.loss == pytest.approx(float(((1 - (-each).exp()) ** 2 * each).mean()), rel=1e-5)
    assert score(model.module(), data, run()) == pytest.approx(float(out.max()))
