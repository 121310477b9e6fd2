"""A perceptron for 8x8 images of handwritten digits: batch x 1 x 8 x 8, values 0..1, to batch x 10 logits."""

from __future__ import annotations

from torch import nn


def build() -> nn.Sequential:
    """The network with random weights."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
