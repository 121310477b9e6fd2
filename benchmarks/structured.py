"""Latency of networks whose channels were halved, against the dense ones, in ONNX Runtime on one thread.

python benchmarks/structured.py [--check]
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from _timing import Report, arguments
from nnopt_plugins.prune.passes import Prune
from nnopt_plugins.prune.structures import Channel
from torch import Tensor, nn

import nnopt_cli
from nnopt_cli import Run
from nnopt_cli.graph import Stopwatch, costs


class Block(nn.Module):
    """Two convolutions of 3x3 beside a shortcut, which is a convolution of 1x1 where sizes differ."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.norm = nn.BatchNorm2d(outside)
        self.second = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.last = nn.BatchNorm2d(outside)
        self.short: nn.Module = nn.Identity()
        if stride > 1 or inside != outside:
            self.short = nn.Sequential(
                nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.last(self.second(self.norm(self.first(x)).relu()))
        return (y + self.short(x)).relu()


def resnet18() -> nn.Module:
    """He et al. 2016, table 1: 18 layers for 224 x 224 images of 1,000 classes."""
    parts: list[nn.Module] = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    parts.append(nn.MaxPool2d(3, 2, 1))
    width = 64
    for outside, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        parts += [Block(width, outside, stride), Block(outside, outside, 1)]
        width = outside
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000))


def resnet20() -> nn.Module:
    """He et al. 2016, section 4.2: 20 layers for 32 x 32 images of 10 classes, with 1x1 shortcuts."""
    parts: list[nn.Module] = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    width = 16
    for outside, stride in ((16, 1), (32, 2), (64, 2)):
        parts += [Block(width, outside, stride), *(Block(outside, outside, 1) for _ in range(2))]
        width = outside
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def halved(build: Callable[[], nn.Module], inputs: str, seconds: float, folder: Path) -> tuple[float, str]:
    """How many times faster half of the channels is, and the figures behind it."""
    torch.manual_seed(0)
    net = build().eval()
    torch.save(net.state_dict(), folder / "net.pt")
    model = nnopt_cli.load(folder / "net.pt", net, inputs=inputs)
    small = Prune(granularity=Channel(), sparsity=0.5).run(model, Run(threads=1))
    watch = Stopwatch(model.program(), folder)
    before, after = watch.against(small.program(), seconds)
    macs = costs(model.program()).macs / costs(small.program()).macs
    said = f"{before.median * 1e3:.2f} to {after.median * 1e3:.2f} ms in {watch.where}"
    said += f", {macs:.2f}x fewer MACs"
    return before.median / after.median, said


def main() -> None:
    """Measure both networks."""
    given = arguments(__doc__, seconds=5.0)
    report = Report(given.check)
    for name, build, inputs, bar in (
        ("ResNet-18", resnet18, "3x224x224", 3.0),
        ("ResNet-20", resnet20, "3x32x32", 1.0),
    ):
        with TemporaryDirectory() as folder:
            ratio, said = halved(build, inputs, given.seconds, Path(folder))
        print(f"{name}: {said}")
        report.bar(f"{name} at half its channels against dense, batch 1", ratio, bar, least=True)
    report.finish()


if __name__ == "__main__":
    main()
