"""What several hand-written networks are built of."""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from .case import images


def conv(inner: int, outer: int, kernel: int = 3, **more: int) -> nn.Sequential:
    """Convolution of the same size, batch normalisation, ReLU."""
    more.setdefault("padding", kernel // 2 * more.get("dilation", 1))
    return nn.Sequential(
        nn.Conv2d(inner, outer, kernel, bias=False, **more), nn.BatchNorm2d(outer), nn.ReLU()
    )


class Block(nn.Module):
    """He et al.'s basic block with a projection where the shape changes."""

    def __init__(self, inner: int, outer: int, stride: int = 1) -> None:
        super().__init__()
        self.first = conv(inner, outer, stride=stride)
        self.second = nn.Sequential(nn.Conv2d(outer, outer, 3, padding=1, bias=False), nn.BatchNorm2d(outer))
        self.short = nn.Identity()
        if stride != 1 or inner != outer:
            self.short = nn.Sequential(nn.Conv2d(inner, outer, 1, stride, bias=False), nn.BatchNorm2d(outer))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.short(x) + self.second(self.first(x)))


class Head(nn.Module):
    """Global average, linear classifier."""

    def __init__(self, inner: int, classes: int = 10) -> None:
        super().__init__()
        self.classify = nn.Linear(inner, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(x.mean((2, 3)))


def mlp(width: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))


SEQUENCE = images(7, 6)


class Frame(nn.Module):
    """Embeds, adds the attention of a subclass and an MLP with pre-normalisation, and classifies."""

    width = 32

    def __init__(self, inner: int = 6) -> None:
        super().__init__()
        self.embed = nn.Linear(inner, self.width)
        self.norm1, self.norm2 = nn.LayerNorm(self.width), nn.LayerNorm(self.width)
        self.mlp, self.classify = mlp(self.width, 64), nn.Linear(self.width, 10)

    def attend(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x = x + self.attend(self.norm1(x))
        x = x + self.mlp(self.norm2(x))
        return self.classify(x.mean(1))
