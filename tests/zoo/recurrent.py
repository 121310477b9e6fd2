"""Hand-written recurrent networks."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from .case import Case, hand, images, tokens

CASES: list[Case] = []
case = hand(CASES)


@case("lstm", tokens(30, 6))
class Lstm(nn.Module):
    """Two bidirectional layers, the last state of both directions joined."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.body = nn.Embedding(30, 16), nn.LSTM(16, 24, 2, batch_first=True, bidirectional=True)
        self.classify = nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        _, (hidden, _) = self.body(self.embed(x))
        return self.classify(torch.cat([hidden[-2], hidden[-1]], -1))


@case("lstm-stack", tokens(30, 6))
class LstmStack(nn.Module):
    """Separate layers with a residual and a norm between; sequence first; no bias in one."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm = nn.Embedding(30, 24), nn.LayerNorm(24)
        self.one, self.two = nn.LSTM(24, 24), nn.LSTM(24, 24, bias=False)
        self.head = nn.Linear(24, 30)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).transpose(0, 1)
        x = x + self.one(x)[0]
        x = x + self.two(self.norm(x))[0]
        return self.head(x).transpose(0, 1)


@case("gru-seq2seq", tokens(30, 6, 2))
class Gru(nn.Module):
    """An encoder whose state starts the decoder; dot attention between their outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.encode, self.decode = (
            nn.Embedding(30, 16),
            nn.GRU(16, 24, batch_first=True),
            nn.GRU(16, 24, batch_first=True),
        )
        self.join, self.head = nn.Linear(48, 24), nn.Linear(24, 30)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        memory, state = self.encode(self.embed(source))
        y, _ = self.decode(self.embed(target), state)
        context = torch.bmm(torch.bmm(y, memory.transpose(1, 2)).softmax(-1), memory)
        return self.head(torch.tanh(self.join(torch.cat([y, context], -1))))


@case("gru-bidirectional", images(6, 5))
class GruBidirectional(nn.Module):
    """Both directions summed instead of joined; a plain RNN after."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.last, self.head = (
            nn.GRU(5, 24, 2, bidirectional=True, batch_first=True),
            nn.RNN(24, 20, batch_first=True),
            nn.Linear(20, 4),
        )

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.body(x)
        y = y.view(y.shape[0], y.shape[1], 2, 24).sum(2)
        return self.head(self.last(y)[0].amax(1))


@case("lstm-projected", images(6, 5), onnx=False)  # LSTM of ONNX has no projections
class LstmProjected(nn.Module):
    """A projected LSTM between ordinary layers."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.body = nn.Linear(5, 16), nn.LSTM(16, 24, batch_first=True, proj_size=12)
        self.hidden, self.head = nn.Linear(12, 64), nn.Linear(64, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.hidden(self.body(F.relu(self.embed(x)))[0][:, -1])))


@case("lstm-cell", images(5, 6))
class Cell(nn.Module):
    """A cell unrolled by a Python loop, from zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.LSTMCell(6, 24), nn.Linear(24, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = c = torch.zeros(x.shape[0], 24, dtype=x.dtype)
        for t in range(5):
            h, c = self.cell(x[:, t], (h, c))
        return self.head(h)


@case("gates-unrolled", images(5, 6))
class Unrolled(nn.Module):
    """A recurrent cell written out: packed gates, chunked; states made with new_zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer, self.head = nn.Linear(6, 96), nn.Linear(24, 96, bias=False), nn.Linear(24, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = c = x.new_zeros(x.shape[0], 24)
        outs = []
        for t in range(5):
            i, f, g, o = (self.inner(x[:, t]) + self.outer(h)).chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            outs.append(h)
        return self.head(torch.stack(outs, 1))


@case("crnn", images(1, 16, 24))
class Crnn(nn.Module):
    """Text reading: convolutions, columns become time, channel times height becomes the feature."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 24, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d((4, 1)),
        )
        self.body, self.head = nn.LSTM(48, 20, bidirectional=True, batch_first=True), nn.Linear(40, 11)

    def forward(self, x: Tensor) -> Tensor:
        x = self.convs(x)
        x = x.permute(0, 3, 1, 2).flatten(2)
        return F.log_softmax(self.head(self.body(x)[0]), -1)


@case("state-space", images(6, 8))
class StateSpace(nn.Module):
    """Mamba's selective scan as a loop: depthwise causal convolution, steps that depend on the input."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.lift, self.depth = (
            nn.Linear(8, 16),
            nn.Linear(16, 64, bias=False),
            nn.Conv1d(32, 32, 3, padding=2, groups=32),
        )
        self.select, self.step, self.out = (
            nn.Linear(32, 4 + 2 * 5, bias=False),
            nn.Linear(4, 32),
            nn.Linear(32, 16, bias=False),
        )
        self.rate, self.skip = nn.Parameter(torch.rand(32, 5)), nn.Parameter(torch.ones(32))
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        y, gate = self.lift(x).chunk(2, -1)
        y = F.silu(self.depth(y.transpose(1, 2))[..., : x.shape[1]]).transpose(1, 2)
        low, b, c = torch.split(self.select(y), [4, 5, 5], dim=-1)
        step = F.softplus(self.step(low))
        decay = torch.exp(-step.unsqueeze(-1) * self.rate.exp())
        drive = step.unsqueeze(-1) * b.unsqueeze(2) * y.unsqueeze(-1)
        state, outs = torch.zeros_like(drive[:, 0]), []
        for t in range(6):
            state = decay[:, t] * state + drive[:, t]
            outs.append((state * c[:, t].unsqueeze(1)).sum(-1))
        y = torch.stack(outs, 1) + y * self.skip
        return self.head(x + self.out(y * F.silu(gate)))
