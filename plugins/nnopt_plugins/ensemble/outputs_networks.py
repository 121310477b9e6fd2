"""The layer that makes one output of several: plain tensor operations, which every exporter knows.

What comes out is of the kind that went in (logits, or probabilities where all members give those), so a fused
network is evaluated, trained and used like its members. Logits of classes are log probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


@dataclass(frozen=True)
class Meaning:
    """What the members' outputs mean.

    Attributes:
        task: `classification`, `multi-label` or `regression`.
        axis: the dimension that classes lie in.
        probabilities: for each member, whether it gives probabilities rather than logits.
    """

    task: str
    axis: int
    probabilities: tuple[bool, ...]


class Combine(nn.Module):
    """What all combinations share: outputs as logits, and back.

    Logits of classes are normalised, so that they are log probabilities.
    """

    weights: Tensor

    def __init__(
        self, meaning: Meaning, weights: Sequence[float], temperatures: Sequence[float] = ()
    ) -> None:
        super().__init__()
        self.meaning = meaning
        self.register_buffer("weights", torch.tensor(list(weights), dtype=torch.float32))
        self._temperatures = [float(each) for each in temperatures] or [1.0] * len(weights)

    def logits(self, outputs: Sequence[Tensor]) -> Tensor:
        """Members x the shape of an output."""
        rows = zip(outputs, self.meaning.probabilities, self._temperatures, strict=True)
        return torch.stack([self._logits(*row) for row in rows])

    def _logits(self, output: Tensor, probabilities: bool, temperature: float) -> Tensor:
        output = output if output.dtype == torch.float64 else output.float()
        if probabilities:
            tiny = torch.finfo(output.dtype).tiny
            output = output.clamp_min(tiny).log() if self._classes else torch.logit(output, eps=1e-7)
        if temperature != 1.0:
            output = output / temperature
        return F.log_softmax(output, self.meaning.axis) if self._classes else output

    @property
    def _classes(self) -> bool:
        return self.meaning.task == "classification"

    def spread(self, like: Tensor) -> Tensor:
        """The weights, one for each member, to be multiplied with what `logits` gives."""
        return self.weights.to(like.dtype).reshape(-1, *[1] * (like.dim() - 1))

    def finished(self, logits: Tensor, dtype: torch.dtype) -> Tensor:
        """The output as the members give theirs."""
        if all(self.meaning.probabilities):
            axis = self.meaning.axis
            logits = F.softmax(logits, axis) if self._classes else torch.sigmoid(logits)
        return logits.to(dtype)

    def forward(self, outputs: list[Tensor]) -> Tensor:
        """One output from all."""
        dtype = outputs[0].dtype
        if self.meaning.task == "regression":
            values = torch.stack([output if dtype == torch.float64 else output.float() for output in outputs])
            return self.values(values).to(dtype)
        return self.finished(self.combined(self.logits(outputs)), dtype)

    def values(self, values: Tensor) -> Tensor:
        """What regression gives: the weighted mean, but for combinations that learn."""
        return (self.spread(values) * values).sum(0)

    def combined(self, logits: Tensor) -> Tensor:
        """Logits from those of all members."""
        raise NotImplementedError


def _log_mean(logs: Tensor, weights: Tensor) -> Tensor:
    """`log(sum of w exp(x))` over the first dimension; weights may be zero."""
    top = logs.amax(0)
    return (weights * (logs - top).exp()).sum(0).clamp_min(torch.finfo(logs.dtype).tiny).log() + top


class MeanProbabilities(Combine):
    """`log(sum of w_i p_i)`, and for labels the logit of the mean of their probabilities."""

    def combined(self, logits: Tensor) -> Tensor:
        weights = self.spread(logits)
        if self._classes:
            return _log_mean(logits, weights)
        return _log_mean(F.logsigmoid(logits), weights) - _log_mean(F.logsigmoid(-logits), weights)


class MeanLogits(Combine):
    """The weighted mean of the logits as they are."""

    def _logits(self, output: Tensor, probabilities: bool, temperature: float) -> Tensor:
        if probabilities:
            return super()._logits(output, probabilities, temperature)
        return output if output.dtype == torch.float64 else output.float()

    def combined(self, logits: Tensor) -> Tensor:
        return (self.spread(logits) * logits).sum(0)


class MeanGeometric(Combine):
    """The weighted geometric mean of the probabilities, normalised."""

    def combined(self, logits: Tensor) -> Tensor:
        mean = (self.spread(logits) * logits).sum(0)
        return F.log_softmax(mean, self.meaning.axis) if self._classes else mean


class Votes(Combine):
    """`log((votes + e p) / (1 + e))`: shares of votes; the mean probability p decides between equals."""

    def __init__(self, meaning: Meaning, weights: Sequence[float]) -> None:
        super().__init__(meaning, weights)
        equal = max(weights) - min(weights) < 1e-9
        self._tie = 0.5 / len(weights) if equal else 1e-3  # less than one vote

    def combined(self, logits: Tensor) -> Tensor:
        weights = self.spread(logits)
        if self._classes:
            axis = self.meaning.axis + (self.meaning.axis >= 0)  # members come first
            best = (logits == logits.amax(axis, keepdim=True)).to(logits.dtype)
            votes = (weights * best / best.sum(axis, keepdim=True)).sum(0)
            mean = (weights * logits.exp()).sum(0)
            shares = (votes + self._tie * mean) / (1 + self._tie)
            return shares.clamp_min(torch.finfo(logits.dtype).tiny).log()
        votes = (weights * (logits > 0).to(logits.dtype)).sum(0)
        mean = (weights * torch.sigmoid(logits)).sum(0)
        return torch.logit((votes + self._tie * mean) / (1 + self._tie), eps=1e-7)


class Stack(Combine):
    """A linear map of all members' logits (or values), which was fitted.

    Attributes:
        matrix: members x classes x classes, or members x classes where every class is weighed by itself.
        bias: classes.
    """

    matrix: Tensor
    bias: Tensor

    def __init__(self, meaning: Meaning, matrix: Tensor, bias: Tensor) -> None:
        super().__init__(meaning, [1.0] * len(matrix))
        del self.weights  # the matrix says it all
        self.register_buffer("matrix", matrix.float())
        self.register_buffer("bias", bias.float())

    def combined(self, logits: Tensor) -> Tensor:
        last = logits.movedim(self.meaning.axis + (self.meaning.axis >= 0), -1)
        matrix = self.matrix.to(last.dtype)
        if self.matrix.dim() == 2:
            out = (last * matrix.reshape(len(matrix), *[1] * (last.dim() - 2), -1)).sum(0)
        else:
            out = sum(last[i] @ matrix[i] for i in range(len(matrix)))
        out = (out + self.bias.to(last.dtype)).movedim(-1, self.meaning.axis)
        return F.log_softmax(out, self.meaning.axis) if self._classes else out

    def values(self, values: Tensor) -> Tensor:
        return self.combined(values)
