"""Train `digits.pt`, the example model, on scikit-learn's bundled digits (1,797 images, 8x8).

Run from the repository's root: `python examples/digits/train.py` (needs scikit-learn; half a minute).
The last 360 images, shuffled with a fixed seed, are held out; the accuracy on them is printed and saved.
"""

from __future__ import annotations

from pathlib import Path

import torch
from net import build
from sklearn.datasets import load_digits
from torch import Tensor, nn

HELD_OUT = 360
EPOCHS = 30


def data() -> tuple[Tensor, Tensor]:
    """Images (1797 x 1 x 8 x 8, values 0..1) and labels, shuffled with seed 0."""
    digits = load_digits()
    order = torch.randperm(len(digits.target), generator=torch.Generator().manual_seed(0))
    images = torch.tensor(digits.images / 16, dtype=torch.float32).unsqueeze(1)
    return images[order], torch.tensor(digits.target)[order]


def accuracy(net: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of `images` that `net` labels rightly."""
    net.eval()
    with torch.no_grad():
        return (net(images).argmax(1) == labels).float().mean().item()


def main() -> None:
    """Train, report, save."""
    torch.manual_seed(0)
    images, labels = data()
    train_x, train_y = images[:-HELD_OUT], labels[:-HELD_OUT]
    test_x, test_y = images[-HELD_OUT:], labels[-HELD_OUT:]
    net = build()
    steps = EPOCHS * (len(train_x) // 64)
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=steps)
    for _ in range(EPOCHS):
        net.train()
        for batch in torch.randperm(len(train_x))[: len(train_x) // 64 * 64].split(64):
            loss = nn.functional.cross_entropy(net(train_x[batch]), train_y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    held_out = accuracy(net, test_x, test_y)
    print(f"held-out accuracy {held_out:.4f} on {HELD_OUT} images")
    target = Path(__file__).parent / "digits.pt"
    torch.save({"state_dict": net.state_dict(), "epoch": EPOCHS, "accuracy": held_out}, target)
    print(f"{target}: {target.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
