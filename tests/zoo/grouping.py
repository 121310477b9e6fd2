"""Hand-written networks that group, shuffle, fold and pick channels."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from .blocks import Head, conv
from .case import Case, hand, images

CASES: list[Case] = []
case = hand(CASES)


@case("grouped", images(3, 16, 16), most=0.5)
class Grouped(nn.Sequential):
    """ResNeXt-like grouped convolutions, and a grouped one that widens."""

    def __init__(self) -> None:
        super().__init__(
            conv(3, 32),
            conv(32, 32, groups=4),
            conv(32, 48, 1),
            conv(48, 96, groups=8),
            conv(96, 32, 1),
            Head(32),
        )


@case("depthwise-multiplier", images(3, 16, 16))
class DepthwiseMultiplier(nn.Sequential):
    """Depthwise convolutions whose every input channel makes one, two and three outputs."""

    def __init__(self) -> None:
        super().__init__(
            conv(3, 24),
            conv(24, 24, groups=24),
            conv(24, 32, 1),
            conv(32, 64, groups=32),
            conv(64, 24, 1),
            conv(24, 72, groups=24),
            conv(72, 32, 1),
            Head(32),
        )


@case("transposed-grouped", images(6, 8, 8), most=0.55)
class TransposedGrouped(nn.Sequential):
    """Transposed convolutions: plain, grouped, depthwise."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(6, 24, 1),
            nn.ReLU(),
            nn.ConvTranspose2d(24, 36, 3, 2, 1, 1, groups=4),
            nn.BatchNorm2d(36),
            nn.ReLU(),
            nn.ConvTranspose2d(36, 36, 4, 2, 1, groups=36),
            nn.ReLU(),
            nn.ConvTranspose2d(36, 16, 3),
            nn.Conv2d(16, 3, 1),
            nn.Tanh(),
        )


@case("channel-shuffle", images(3, 16, 16), most=0.6)
class ChannelShuffle(nn.Module):
    """Grouped 1x1 convolutions whose channels are shuffled between the groups (ShuffleNet)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 64)
        self.narrow, self.depth, self.wide = (
            conv(64, 64, 1, groups=4),
            conv(64, 64, groups=64),
            conv(64, 64, 1, groups=4),
        )
        self.head = Head(64)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.narrow(x)
        batch, channels, height, width = y.shape
        y = (
            y.view(batch, 4, channels // 4, height, width)
            .transpose(1, 2)
            .reshape(batch, channels, height, width)
        )
        return self.head(x + self.wide(self.depth(y)))


@case("channel-shuffle-module", images(3, 16, 16))
class ShuffleModule(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            conv(3, 32), nn.ChannelShuffle(4), conv(32, 32, groups=32), conv(32, 32, 1), Head(32)
        )


@case("pixel-shuffle", images(3, 12, 12))
class PixelShuffle(nn.Module):
    """Super-resolution: residual body, two sub-pixel steps, a long skip from the image."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body = conv(3, 16), nn.Sequential(conv(16, 16), conv(16, 16))
        self.up = nn.Sequential(
            nn.Conv2d(16, 64, 3, padding=1),
            nn.PixelShuffle(2),
            nn.ReLU(),
            nn.Conv2d(16, 64, 3, padding=1),
            nn.PixelShuffle(2),
            nn.ReLU(),
        )
        self.out = nn.Conv2d(16, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        return self.out(self.up(y + self.body(y))) + F.interpolate(x, scale_factor=4, mode="bicubic")


@case("pixel-unshuffle", images(3, 16, 16))
class PixelUnshuffle(nn.Sequential):
    """Space to depth twice, then back."""

    def __init__(self) -> None:
        super().__init__(
            conv(3, 8),
            nn.PixelUnshuffle(2),
            conv(32, 12),
            nn.PixelUnshuffle(2),
            conv(48, 64),
            nn.PixelShuffle(4),
            conv(4, 16),
            Head(16),
        )


@case("split-attention", images(3, 16, 16), most=0.5)
class SplitAttention(nn.Module):
    """ResNeSt: a grouped convolution makes two splits; softmax over them by a packed 1x1 convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body = conv(3, 24), conv(24, 48, groups=2)
        self.squeeze, self.attend, self.head = conv(24, 12, 1), nn.Conv2d(12, 48, 1), Head(24)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(self.stem(x))
        batch, channels = x.shape[:2]
        splits = x.reshape(batch, 2, channels // 2, *x.shape[2:])
        gap = splits.sum(1).mean((2, 3), keepdim=True)
        weight = (
            self.attend(self.squeeze(gap))
            .view(batch, 2, channels // 2)
            .softmax(dim=1)
            .view(batch, 2, channels // 2, 1, 1)
        )
        return self.head((splits * weight).sum(1))


@case("reordered", images(3, 16, 16), most=0.6)
class Reordered(nn.Module):
    """Channels picked by a fixed permutation, by a stride, and flipped."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body, self.head = conv(3, 24), conv(24, 24), Head(12)
        self.register_buffer("order", torch.randperm(24, generator=torch.Generator().manual_seed(1)))

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(self.stem(x)[:, self.order])
        return self.head(x[:, ::2] * x[:, 1::2].flip(1))


@case("unfold", images(3, 12, 12))
class Unfold(nn.Module):
    """im2col by hand: patches of every channel are columns of a linear map."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.mix, self.head = conv(3, 16), nn.Linear(16 * 9, 24), nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = F.unfold(self.stem(x), 3, padding=1).transpose(1, 2)
        return self.head(F.relu(self.mix(y)).mean(1))


@case("unpool", images(3, 16, 16))
class Unpool(nn.Module):
    """SegNet: the positions of the maxima are used again on the way up."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.middle, self.up, self.out = (
            conv(3, 16),
            conv(16, 16),
            conv(16, 24),
            nn.Conv2d(24, 4, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        x, where = F.max_pool2d(self.down(x), 2, return_indices=True)
        return self.out(self.up(F.max_unpool2d(self.middle(x), where, 2)))


@case("repeated-input", images(1, 16, 16))
class RepeatedInput(nn.Module):
    """A grey image repeated to three channels, normalised by buffers; a learned constant image joined on."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.4, 0.5, 0.6]).view(1, 3, 1, 1))
        self.canvas = nn.Parameter(torch.randn(1, 5, 16, 16))
        self.first, self.second, self.head = conv(8, 16), conv(16, 32), Head(32)

    def forward(self, x: Tensor) -> Tensor:
        x = (x.repeat(1, 3, 1, 1) - self.mean) / 0.25
        x = torch.cat([x, self.canvas.expand(x.shape[0], -1, -1, -1)], 1)
        return self.head(self.second(self.first(x)))
