"""Train the models of this folder on scikit-learn's handwritten digits (1,797 images, 8x8).

`start.pt` is a short training; `left.pt` and `right.pt` are fine-tuned from it, each on another half of
the training images: a related pair. `stranger.pt` is trained from other random weights: with `left.pt` an
unrelated one. Run from the repository's root: `python examples/ensemble/train.py` (needs scikit-learn;
seconds). The 360 images of `digits:part=test` are held out.
"""

from __future__ import annotations

from pathlib import Path

import torch
from net import build
from sklearn.datasets import load_digits
from torch import Tensor, nn

HELD_OUT = 360


def data() -> tuple[Tensor, Tensor]:
    """Images (1797 x 1 x 8 x 8, values 0..1) and labels, in the order of the dataset `digits`."""
    digits = load_digits()
    order = torch.randperm(len(digits.target), generator=torch.Generator().manual_seed(0))
    images = torch.tensor(digits.images / 16, dtype=torch.float32).unsqueeze(1)
    return images[order], torch.tensor(digits.target)[order]


def train(net: nn.Module, images: Tensor, labels: Tensor, epochs: int, rate: float, seed: int) -> None:
    """Adam on batches of 32."""
    draw = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(net.parameters(), lr=rate)
    for _ in range(epochs):
        for batch in torch.randperm(len(images), generator=draw).split(32):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(images[batch]), labels[batch]).backward()
            optimizer.step()


def main() -> None:
    """Train, report, save."""
    torch.manual_seed(0)
    here = Path(__file__).parent
    images, labels = data()
    test_images, test_labels = images[-HELD_OUT:], labels[-HELD_OUT:]
    images, labels = images[:-HELD_OUT], labels[:-HELD_OUT]
    half = len(images) // 2
    start, stranger = build(), build()
    train(start, images, labels, epochs=6, rate=3e-3, seed=1)
    train(stranger, images, labels, epochs=20, rate=3e-3, seed=2)
    nets = {"start": start, "stranger": stranger}
    for name, rows, seed in (("left", slice(None, half), 3), ("right", slice(half, None), 4)):
        nets[name] = build()
        nets[name].load_state_dict(start.state_dict())
        train(nets[name], images[rows], labels[rows], epochs=10, rate=1e-2, seed=seed)
    for name, net in nets.items():
        torch.save(net.state_dict(), here / f"{name}.pt")
        right = net(test_images).argmax(1) == test_labels
        print(f"{name}.pt: {right.float().mean():.4f} of {HELD_OUT} held-out images right")


if __name__ == "__main__":
    main()
