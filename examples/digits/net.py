"""A small convolutional network for 8x8 images of handwritten digits.

Input: float images, batch x 1 x 8 x 8, pixel values 0..1; output: batch x 10 logits.
"""

from __future__ import annotations

from torch import Tensor, nn


class DigitNet(nn.Module):
    """Three convolutions with batch norm and a two-layer head."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.MaxPool2d(2),  # 8x8 -> 4x4
            nn.Conv2d(64, 64, 3, padding=1, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
        )
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))


def build() -> DigitNet:
    """The network with random weights."""
    return DigitNet()
