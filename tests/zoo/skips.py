"""Hand-written networks whose branches meet in sums and concatenations."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from .blocks import Block, Head, conv
from .case import Case, hand, images

CASES: list[Case] = []
case = hand(CASES)


@case("residual", images(3, 16, 16))
class Residual(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(conv(3, 32), Block(32, 32), Block(32, 64, 2), Block(64, 64), Head(64))


@case("preactivation", images(3, 16, 16))
class Preactivation(nn.Module):
    """The residual sum itself is never normalised; each branch normalises it anew (He et al. 2016)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(32) for _ in range(4))
        self.convs = nn.ModuleList(nn.Conv2d(32, 32, 3, padding=1, bias=False) for _ in range(4))
        self.head = Head(32)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for first in (0, 2):
            y = x
            for i in (first, first + 1):
                y = self.convs[i](F.relu(self.norms[i](y)))
            x = x + y
        return self.head(F.relu(x))


@case("option-a", images(3, 16, 16))
class OptionA(nn.Module):
    """Shortcuts without parameters: every other pixel, and channels padded with zeros on both sides."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.head = conv(3, 16), Block(16, 16), Head(64)
        self.twos = nn.ModuleList(
            nn.Sequential(conv(c, 2 * c, stride=2), conv(2 * c, 2 * c)) for c in (16, 32)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(self.stem(x))
        for two in self.twos:
            quarter = x.shape[1] // 2
            x = F.relu(two(x) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, quarter, quarter)))
        return self.head(x)


@case("dense-concatenation", images(3, 16, 16))
class Dense(nn.Module):
    """Every layer reads all earlier ones (Huang et al. 2017), with a transition and a flattened head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(16 + 12 * i), nn.ReLU(), nn.Conv2d(16 + 12 * i, 12, 3, padding=1))
            for i in range(4)
        )
        self.transition = conv(64, 24, 1)
        self.classify = nn.Linear(24 * 16, 10)

    def forward(self, x: Tensor) -> Tensor:
        known = [self.stem(x)]
        for layer in self.layers:
            known.append(layer(torch.cat(known, 1)))
        return self.classify(F.max_pool2d(self.transition(torch.cat(known, 1)), 4).flatten(1))


@case("unet", images(1, 16, 16))
class UNet(nn.Module):
    """Skip concatenations around transposed convolutions; odd widths."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2, self.bottom = conv(1, 13), conv(13, 27), conv(27, 51)
        self.up2, self.up1 = nn.ConvTranspose2d(51, 27, 2, 2), nn.ConvTranspose2d(27, 13, 2, 2)
        self.join2, self.join1 = conv(54, 27), conv(26, 13)
        self.out = nn.Conv2d(13, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.down1(x)
        b = self.down2(F.max_pool2d(a, 2))
        y = self.up2(self.bottom(F.max_pool2d(b, 2)))
        y = self.up1(self.join2(torch.cat([b, y], 1)))
        return self.out(self.join1(torch.cat([a, y], 1)))


@case("fpn", images(3, 32, 32))
class Fpn(nn.Module):
    """Lateral 1x1 convolutions, top-down sums, one shared head on every level; several outputs."""

    def __init__(self) -> None:
        super().__init__()
        widths = (16, 24, 40)
        self.stages = nn.ModuleList(conv(a, b, stride=2) for a, b in zip((3, *widths), widths, strict=False))
        self.lateral = nn.ModuleList(nn.Conv2d(w, 20, 1) for w in widths)
        self.smooth, self.shared, self.out = conv(20, 20), conv(20, 20), nn.Conv2d(20, 6, 3, padding=1)

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        top, levels = None, []
        for lateral, level in zip(reversed(self.lateral), reversed(maps), strict=True):
            side = lateral(level)
            top = side if top is None else side + F.interpolate(top, size=side.shape[-2:], mode="nearest")
            levels.append(self.out(self.shared(self.smooth(top))))
        return levels


@case("inception", images(3, 16, 16))
class Inception(nn.Module):
    """Branches of different widths and an average pool, concatenated twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = conv(3, 20), Head(46)
        self.blocks = nn.ModuleList(
            nn.ModuleList(
                [
                    conv(c, 11, 1),
                    nn.Sequential(conv(c, 8, 1), conv(8, 15)),
                    nn.Sequential(conv(c, 5, 1), conv(5, 7), conv(7, 7)),
                    nn.Sequential(nn.AvgPool2d(3, 1, 1), conv(c, 13, 1)),
                ]
            )
            for c in (20, 46)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = torch.cat([branch(x) for branch in block], 1)
        return self.head(x)


@case("c2f", images(3, 16, 16))
class C2f(nn.Module):
    """YOLOv8's block: chunk, a chain of bottlenecks on one half, everything concatenated; SPPF after it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.split = conv(3, 32), conv(32, 48, 1)
        self.chain = nn.ModuleList(nn.Sequential(conv(24, 24), conv(24, 24)) for _ in range(3))
        self.join = conv(24 * 5, 40, 1)
        self.reduce, self.spread = conv(40, 20, 1), conv(80, 40, 1)
        self.box, self.label = nn.Conv2d(40, 16, 1), nn.Conv2d(40, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.split(self.stem(x)).chunk(2, 1))
        for link in self.chain:
            parts.append(parts[-1] + link(parts[-1]))
        x = self.join(torch.cat(parts, 1))
        pools = [self.reduce(x)]
        for _ in range(3):
            pools.append(F.max_pool2d(pools[-1], 5, 1, 2))
        x = self.spread(torch.cat(pools, 1))
        return torch.cat([self.box(x), self.label(x)], 1).flatten(2)


@case("c3-csp", images(3, 16, 16))
class CrossStage(nn.Module):
    """Two parallel 1x1 convolutions, one with residual bottlenecks, concatenated (CSPNet)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.left, self.right, self.join = (
            conv(3, 24),
            conv(24, 16, 1),
            conv(24, 16, 1),
            conv(32, 24, 1),
        )
        self.bottlenecks = nn.ModuleList(nn.Sequential(conv(16, 16, 1), conv(16, 16)) for _ in range(2))
        self.head = Head(24)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.left(x)
        for bottleneck in self.bottlenecks:
            y = y + bottleneck(y)
        return self.head(self.join(torch.cat((y, self.right(x)), dim=1)))


@case("res2net", images(3, 16, 16))
class Res2Net(nn.Module):
    """One convolution split into four scales, each fed with the one before, concatenated again."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.wide, self.narrow, self.head = conv(3, 24), conv(24, 48, 1), conv(48, 24, 1), Head(24)
        self.scales = nn.ModuleList(conv(12, 12) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        first, *rest = torch.split(self.wide(x), 12, 1)
        parts, last = [first], None
        for scale, part in zip(self.scales, rest, strict=True):
            last = scale(part if last is None else part + last)
            parts.append(last)
        return self.head(x + self.narrow(torch.cat(parts, 1)))


@case("ghost", images(3, 16, 16))
class Ghost(nn.Module):
    """Half of the channels are cheap depthwise copies of the others, trimmed to an odd count (GhostNet)."""

    def __init__(self) -> None:
        super().__init__()
        self.primary, self.cheap = conv(3, 16), conv(16, 16, groups=16)
        self.primary2, self.cheap2, self.head = conv(32, 20, 1), conv(20, 20, groups=20), Head(39)

    def forward(self, x: Tensor) -> Tensor:
        x = self.primary(x)
        x = torch.cat([x, self.cheap(x)], 1)
        x = self.primary2(x)
        return self.head(torch.cat([x, self.cheap2(x)], 1)[:, :39])


@case("hrnet", images(3, 16, 16))
class HrNet(nn.Module):
    """Two resolutions that exchange features by strided convolution and upsampling."""

    def __init__(self) -> None:
        super().__init__()
        self.high, self.low = conv(3, 16), conv(3, 32, stride=2)
        self.down = nn.Sequential(nn.Conv2d(16, 32, 3, 2, 1), nn.BatchNorm2d(32))
        self.up = nn.Sequential(nn.Conv2d(32, 16, 1), nn.BatchNorm2d(16), nn.Upsample(scale_factor=2))
        self.high2, self.low2, self.out = conv(16, 16), conv(32, 32), nn.Conv2d(48, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.high(x), self.low(x)
        a, b = self.high2(F.relu(a + self.up(b))), self.low2(F.relu(b + self.down(a)))
        return self.out(
            torch.cat([a, F.interpolate(b, scale_factor=2, mode="bilinear", align_corners=True)], 1)
        )
