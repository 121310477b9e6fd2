"""The CIFAR-10 residual networks of He et al. (2015), section 4.2, with option A shortcuts.

A network of depth 6n + 2 has three stages of n blocks, 16, 32 and 64 channels wide. Where a stage
halves the image, the shortcut takes every second pixel and pads the new channels with zeros, so it
has no parameters. Input: float images, batch x 3 x 32 x 32, normalised; output: batch x 10 logits.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch norm, added to their input."""

    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inner, outer, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outer)
        self.conv2 = nn.Conv2d(outer, outer, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outer)
        self.stride = stride
        self.grown = outer - inner  # channels that the shortcut pads with zeros

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.grown:
            half = self.grown // 2
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, half, self.grown - half))
        return F.relu(out + x)


class ResNet(nn.Module):
    """A CIFAR ResNet of depth `6 * blocks + 2`."""

    def __init__(self, blocks: int, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = self._stage(16, 16, blocks, stride=1)
        self.layer2 = self._stage(16, 32, blocks, stride=2)
        self.layer3 = self._stage(32, 64, blocks, stride=2)
        self.linear = nn.Linear(64, classes)

    @staticmethod
    def _stage(inner: int, outer: int, blocks: int, stride: int) -> nn.Sequential:
        first = BasicBlock(inner, outer, stride)
        return nn.Sequential(first, *(BasicBlock(outer, outer, 1) for _ in range(blocks - 1)))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.layer3(self.layer2(self.layer1(out)))
        return self.linear(torch.flatten(F.adaptive_avg_pool2d(out, 1), 1))


def resnet20() -> ResNet:
    """Depth 20: 0.27 million parameters."""
    return ResNet(3)


def resnet32() -> ResNet:
    """Depth 32: 0.46 million parameters."""
    return ResNet(5)
