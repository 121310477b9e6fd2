"""Hand-written networks, one per kind of normalisation."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from .blocks import Head, conv
from .case import Case, hand, images

CASES: list[Case] = []
case = hand(CASES)


@case("group-norm", images(3, 16, 16))
class GroupNorm(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 32, 3),
            nn.GroupNorm(8, 32),
            nn.SiLU(),
            nn.Conv2d(32, 48, 3),
            nn.GroupNorm(4, 48),
            nn.SiLU(),
            nn.Conv2d(48, 32, 3),
            nn.GroupNorm(1, 32),
            nn.SiLU(),
            nn.Conv2d(32, 24, 3),
            nn.GroupNorm(24, 24),
            nn.SiLU(),
            Head(24),
        )


@case("instance-norm", images(3, 16, 16))
class InstanceNorm(nn.Sequential):
    """Style transfer: reflected padding, instance normalisation with and without parameters."""

    def __init__(self) -> None:
        super().__init__(
            nn.ReflectionPad2d(1),
            nn.Conv2d(3, 24, 3),
            nn.InstanceNorm2d(24, affine=True),
            nn.ReLU(),
            nn.ZeroPad2d(1),
            nn.Conv2d(24, 32, 3),
            nn.InstanceNorm2d(32),
            nn.ReLU(),
            nn.Conv2d(32, 24, 3),
            nn.InstanceNorm2d(24, track_running_stats=True),
            nn.ReLU(),
            nn.Upsample(scale_factor=2, mode="nearest"),
            nn.Conv2d(24, 3, 3),
        )


@case("weight-norm", images(3, 16, 16))
class WeightNorm(nn.Sequential):
    """Weights given as direction and length: the parametrisation, and the older hook."""

    def __init__(self) -> None:
        normed = nn.utils.parametrizations.weight_norm
        super().__init__(
            normed(nn.Conv2d(3, 24, 3)),
            nn.ReLU(),
            normed(nn.Conv2d(24, 32, 3)),
            nn.ReLU(),
            normed(nn.ConvTranspose2d(32, 24, 3), dim=1),
            nn.ReLU(),
            Head(24),
            normed(nn.Linear(10, 10)),
        )


@case("weight-standardisation", images(3, 16, 16))
class WeightStandardisation(nn.Module):
    """Convolutions whose weights are normalised per output channel in the graph; GroupNorm (BiT)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.norm, self.head = (
            nn.Conv2d(3, 32, 3),
            nn.Conv2d(32, 32, 3),
            nn.GroupNorm(8, 32),
            Head(32),
        )

    def standard(self, layer: nn.Conv2d, x: Tensor) -> Tensor:
        mean = layer.weight.mean((1, 2, 3), keepdim=True)
        std = layer.weight.std((1, 2, 3), keepdim=True)
        return F.conv2d(x, (layer.weight - mean) / (std + 1e-5), layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.standard(self.second, F.relu(self.norm(self.standard(self.first, x))))))


@case("convnext", images(3, 32, 32))
class ConvNext(nn.Module):
    """Depthwise, LayerNorm in channels-last, inverted bottleneck, layer scale, stochastic depth."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 24, 4, 4)
        self.depth = nn.ModuleList(nn.Conv2d(24, 24, 7, padding=3, groups=24) for _ in range(2))
        self.norm = nn.ModuleList(nn.LayerNorm(24, eps=1e-6) for _ in range(2))
        self.wide = nn.ModuleList(nn.Linear(24, 96) for _ in range(2))
        self.narrow = nn.ModuleList(nn.Linear(96, 24) for _ in range(2))
        self.scale = nn.ParameterList(torch.full((24,), 0.1) for _ in range(2))
        self.bias = nn.Parameter(torch.zeros(24, 1, 1))
        self.head = nn.Sequential(nn.LayerNorm(24), nn.Linear(24, 10))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x) + self.bias
        for depth, norm, wide, narrow, scale in zip(
            self.depth, self.norm, self.wide, self.narrow, self.scale, strict=True
        ):
            y = scale * narrow(F.gelu(wide(norm(depth(x).permute(0, 2, 3, 1)))))
            if self.training:
                y = y * torch.empty(y.shape[0], 1, 1, 1).bernoulli_(0.9)
            x = x + y.permute(0, 3, 1, 2)
        return self.head(x.mean([-2, -1]))


@case("grn", images(3, 16, 16))
class Grn(nn.Module):
    """ConvNeXt V2's global response normalisation: a norm over space, divided by its mean over channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.wide, self.narrow = nn.Conv2d(3, 24, 2, 2), nn.Linear(24, 64), nn.Linear(64, 24)
        self.gamma, self.beta = nn.Parameter(torch.ones(1, 1, 1, 64)), nn.Parameter(torch.zeros(1, 1, 1, 64))
        self.out = nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).permute(0, 2, 3, 1)
        y = F.gelu(self.wide(x))
        length = torch.norm(y, p=2, dim=(1, 2), keepdim=True)
        share = length / (length.mean(dim=-1, keepdim=True) + 1e-6)
        x = x + self.narrow(self.gamma * (y * share) + self.beta + y)
        return self.out(x.mean((1, 2)))


@case("patch-gan-spectral", images(3, 16, 16))
class Spectral(nn.Sequential):
    """Spectral normalisation: the weight divided by a bilinear form of its own rows and columns."""

    def __init__(self) -> None:
        normed = nn.utils.parametrizations.spectral_norm
        super().__init__(
            normed(nn.Conv2d(3, 16, 4, 2, 1)),
            nn.LeakyReLU(0.2),
            normed(nn.Conv2d(16, 32, 4, 2, 1)),
            nn.LeakyReLU(0.2),
            nn.Conv2d(32, 1, 3),
        )


@case("local-response", images(3, 16, 16))
class LocalResponse(nn.Sequential):
    """AlexNet's normalisation across neighbouring channels: nothing may leave its neighbourhood."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 16, 3), nn.ReLU(), nn.LocalResponseNorm(3), conv(16, 32), conv(32, 32), Head(32)
        )
