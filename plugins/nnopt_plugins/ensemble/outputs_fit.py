"""What weighted and stacked outputs learn from held-out data: pure functions of the members' outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from nnopt_cli.data import Expected, aligned, answer, as_call

if TYPE_CHECKING:
    from nnopt_cli import Model, Run
    from nnopt_cli.data import Data

_STEPS = 200  # of L-BFGS at most; the problems have tens to hundreds of unknowns
_FOLDS = 5
PENALTIES = (
    1.0,
    0.1,
    0.01,
    0.001,
)  # on squared departures from the mean; cross-validation chooses


def answers(models: Sequence[Model], data: Data, run: Run) -> tuple[Tensor, Tensor]:
    """Every member's outputs on `data.plain`, and the targets; classes last, positions as rows.

    Returns: members x rows x classes in float64, and one row of targets for each.
    """
    calls = []
    for model in models:
        module = model.module()
        program = model.program() if model.rung == "graph" else module
        calls.append((as_call(program, run.device), Expected.of(model, module)))
    outputs: list[list[Tensor]] = [[] for _ in models]
    targets = []
    with torch.no_grad():
        for batch in data.plain.on(run.device):
            for place, (call, expected) in enumerate(calls):
                fed = expected.fed(batch)
                found, target = aligned(answer(call, fed, expected.batch), batch.target, data.task)
                outputs[place].append(_as_rows(found, data.task.kind == "classification").double().cpu())
            targets.append(target.cpu())
    stacked = torch.stack([torch.cat(parts) for parts in outputs])
    target = torch.cat(targets)
    if target.is_floating_point():
        return stacked, target.double().reshape(stacked.shape[1], -1)
    target = target.reshape(-1)
    known = target >= 0
    return stacked[:, known], target[known]


def _as_rows(outputs: Tensor, classes: bool) -> Tensor:
    last = outputs.movedim(1, -1) if classes or outputs.dim() > 1 else outputs[:, None]
    return last.reshape(-1, last.shape[-1])


def loss_of(logits: Tensor, target: Tensor, task: str) -> Tensor:
    """The mean loss: cross entropy, that of every label, or half the squared error."""
    if task == "classification":
        return F.cross_entropy(logits, target)
    if task == "multi-label":
        return F.binary_cross_entropy_with_logits(logits, target)
    return (logits - target).square().mean() / 2


def minimise(loss: Callable[[], Tensor], unknowns: Sequence[Tensor]) -> None:
    """L-BFGS with line search, in place."""
    optimizer = torch.optim.LBFGS(
        list(unknowns), max_iter=_STEPS, tolerance_grad=1e-9, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(closure)  # type: ignore[arg-type]


def fit_weights(outputs: Tensor, target: Tensor, task: str) -> tuple[list[float], list[float]]:
    """Weights that sum to one, and a temperature for each member, at which the mixture's loss is least.

    Args:
        outputs: members x rows x classes: logits, or values.
        target: one for each row.
        task: what they mean.

    Temperatures as in Guo et al. 2017, arXiv:1706.04599, here together with the weights; values have none.
    """
    members = len(outputs)
    raw = torch.zeros(members, dtype=torch.float64, requires_grad=True)
    heat = torch.zeros(members, dtype=torch.float64, requires_grad=True)

    def loss() -> Tensor:
        return loss_of(_mixture(outputs, raw, heat, task), target, task)

    with torch.enable_grad():
        minimise(loss, [raw] if task == "regression" else [raw, heat])
    weights = raw.detach().softmax(0).tolist()
    return weights, [1.0] * members if task == "regression" else heat.detach().exp().tolist()


def _mixture(outputs: Tensor, raw: Tensor, heat: Tensor, task: str) -> Tensor:
    logs = raw.log_softmax(0)[:, None, None]
    if task == "regression":
        return (logs.exp() * outputs).sum(0)
    tempered = outputs / heat.clamp(-5, 5).exp()[:, None, None]
    if task == "classification":
        return torch.logsumexp(logs + tempered.log_softmax(-1), 0)
    yes, no = (torch.logsumexp(logs + F.logsigmoid(sign * tempered), 0) for sign in (1, -1))
    return yes - no


def fit_stack(
    outputs: Tensor, target: Tensor, task: str, full: bool, seed: int = 0
) -> tuple[Tensor, Tensor, float]:
    """A linear map of all members' log probabilities (or values), kept near their mean.

    Wolpert 1992, "Stacked generalization". The members did not learn from these rows, which takes the
    place of its leave-one-out level. How much the map is kept near the mean is chosen by cross-validation.

    Args:
        outputs: members x rows x classes.
        target: one for each row.
        task: what they mean.
        full: whether every class is read for every class, rather than for itself alone.
        seed: of the folds.

    Returns: the matrix and the bias of `Stack`, and the penalty that was chosen.
    """
    features = outputs.log_softmax(-1) if task == "classification" else outputs
    rows = features.shape[1]
    fold = torch.randperm(rows, generator=torch.Generator().manual_seed(seed)) % _FOLDS
    losses = dict.fromkeys(PENALTIES, 0.0)
    for number in range(_FOLDS):
        train, test = fold != number, fold == number
        for penalty in PENALTIES:
            matrix, bias = _stacked(features[:, train], target[train], task, full, penalty)
            losses[penalty] += float(loss_of(mapped(features[:, test], matrix, bias), target[test], task))
    chosen = min(PENALTIES, key=lambda penalty: losses[penalty])
    return *_stacked(features, target, task, full, chosen), chosen


def _stacked(
    features: Tensor, target: Tensor, task: str, full: bool, penalty: float
) -> tuple[Tensor, Tensor]:
    members, _, classes = features.shape
    start = torch.full((members, classes), 1 / members, dtype=torch.float64)
    start = torch.diag_embed(start) if full else start
    matrix = start.clone().requires_grad_(True)
    bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)

    def loss() -> Tensor:
        away = (matrix - start).square().sum() + bias.square().sum()
        return loss_of(mapped(features, matrix, bias), target, task) + penalty * away

    with torch.enable_grad():
        minimise(loss, [matrix, bias])
    return matrix.detach(), bias.detach()


def mapped(features: Tensor, matrix: Tensor, bias: Tensor) -> Tensor:
    """Rows x classes from members x rows x classes."""
    if matrix.dim() == 2:
        return (features * matrix[:, None]).sum(0) + bias
    return torch.einsum("mrc,mcd->rd", features, matrix) + bias
