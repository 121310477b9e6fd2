"""A network that is far too large for 200 handwritten digits, so that it learns them by heart.

Input: float images, batch x 1 x 8 x 8, pixel values 0..1; output: batch x 10 logits.
"""

from __future__ import annotations

from torch import Tensor, nn


class WideNet(nn.Module):
    """Two convolutions and a two-layer head, 170,058 parameters, with nothing that regularises."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 64, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(64, 64, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),  # 8x8 -> 4x4
        )
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(1024, 128), nn.ReLU(), nn.Linear(128, 10))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))


def build() -> WideNet:
    """The network with random weights."""
    return WideNet()
