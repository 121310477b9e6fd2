"""Two sizes of network for 8x8 images of handwritten digits: batch x 1 x 8 x 8, values 0..1, to 10 logits."""

from __future__ import annotations

from torch import nn


def teacher() -> nn.Sequential:
    """6,138 parameters, 84,224 multiply-accumulates an image."""
    return _network(16, 32, stride=1)


def student() -> nn.Sequential:
    """1,922 parameters, 6,400 multiply-accumulates an image."""
    return _network(8, 16, stride=2)


def _network(first: int, second: int, stride: int) -> nn.Sequential:
    """Two convolutions, each halving the image by its stride or by pooling, and a classifier."""
    return nn.Sequential(
        nn.Conv2d(1, first, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(first),
        nn.ReLU(),
        nn.MaxPool2d(3 - stride),
        nn.Conv2d(first, second, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(second),
        nn.ReLU(),
        nn.MaxPool2d(3 - stride),
        nn.Flatten(),
        nn.Linear(second * 4, 10),
    )
