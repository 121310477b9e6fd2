"""Small networks for structured pruning; a file of its own, so that `--arch` can name them."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn


class Residual(nn.Module):
    """Two residual blocks of width 16 with hidden widths 12 and 20, batch norm, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.a1, self.n1, self.b1 = nn.Conv2d(16, 12, 3, padding=1), nn.BatchNorm2d(12), nn.Conv2d(12, 16, 1)
        self.a2, self.n2, self.b2 = nn.Conv2d(16, 20, 3, padding=1), nn.BatchNorm2d(20), nn.Conv2d(20, 16, 1)
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        x = x + self.b1(self.n1(self.a1(x)).relu())
        x = x + self.b2(self.n2(self.a2(x)).relu())
        y: Tensor = self.head(x.mean((2, 3)))
        return y


class Attention(nn.Module):
    """Four heads of attention over tokens, and a feed-forward block."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(11, 16)
        self.q, self.k, self.v = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 16)
        self.out = nn.Linear(16, 16)
        self.up, self.down = nn.Linear(16, 24), nn.Linear(24, 16)
        self.head = nn.Linear(16, 11)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.table(ids)
        batch, tokens, width = x.shape
        q, k, v = (f(x).reshape(batch, tokens, 4, 4).transpose(1, 2) for f in (self.q, self.k, self.v))
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, tokens, width)
        x = x + self.out(mixed)
        y: Tensor = self.head(x + self.down(F.gelu(self.up(x))))
        return y


class Bound(nn.Module):
    """One map from inputs to outputs: nothing in it can go."""

    def __init__(self) -> None:
        super().__init__()
        self.only = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.only(x)
        return y


INPUTS = {Residual: "3x8x8", Attention: "int64[N,6]<11", Bound: "6"}


def made(cls: type[nn.Module]) -> nn.Module:
    """A network with random weights, and statistics of batch norms unlike their defaults."""
    torch.manual_seed(0)
    net = cls()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.running_mean, -1, 1)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return net.eval()
