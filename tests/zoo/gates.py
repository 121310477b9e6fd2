"""Hand-written networks whose channels gate and mix one another."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from .blocks import Head, conv
from .case import Case, hand, images, together

CASES: list[Case] = []
case = hand(CASES)


@case("squeeze-excite", images(3, 16, 16))
class SqueezeExcite(nn.Module):
    """Inverted bottlenecks with a gate per channel, by 1x1 convolutions and by linear maps."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.expand, self.depth, self.project = (
            conv(3, 16),
            conv(16, 64, 1),
            conv(64, 64, groups=64),
            conv(64, 16, 1),
        )
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(64, 8, 1), nn.SiLU(), nn.Conv2d(8, 64, 1), nn.Sigmoid()
        )
        self.fc = nn.Sequential(nn.Linear(16, 4), nn.ReLU(), nn.Linear(4, 16), nn.Hardsigmoid())
        self.head = Head(16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.depth(self.expand(x))
        x = x + self.project(y * self.gate(y))
        batch, channels = x.shape[:2]
        gate = self.fc(F.adaptive_avg_pool2d(x, 1).view(batch, channels)).view(batch, channels, 1, 1)
        return self.head(x * gate.expand_as(x))


@case("cbam", images(3, 16, 16))
class Cbam(nn.Module):
    """Attention over channels (average and maximum through one shared net), then over space."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body = conv(3, 32), conv(32, 32)
        self.shared = nn.Sequential(nn.Linear(32, 8), nn.ReLU(), nn.Linear(8, 32))
        self.where, self.head = nn.Conv2d(2, 1, 7, padding=3), Head(32)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(self.stem(x))
        gate = torch.sigmoid(self.shared(x.mean((2, 3))) + self.shared(x.amax((2, 3))))
        x = x * gate.unsqueeze(2).unsqueeze(3)
        space = torch.cat([x.mean(1, keepdim=True), x.max(1, keepdim=True)[0]], 1)
        return self.head(x * torch.sigmoid(self.where(space)))


@case("prelu", images(3, 16, 16))
class PRelu(nn.Sequential):
    """PReLU with one slope per channel, and with one slope in all."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 24, 3),
            nn.PReLU(24),
            nn.Conv2d(24, 24, 3),
            nn.PReLU(),
            nn.Conv2d(24, 32, 3),
            nn.Flatten(),
            nn.Linear(32 * 100, 20),
            nn.PReLU(20),
            nn.Linear(20, 10),
        )


@case("glu", images(3, 16, 16))
class Glu(nn.Module):
    """Gated linear units over channels, a simple gate (half times half), and a maxout."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Conv2d(3, 48, 3), nn.Conv2d(24, 40, 3), nn.Conv2d(20, 36, 3)
        self.head = Head(12)

    def forward(self, x: Tensor) -> Tensor:
        x = F.glu(self.first(x), dim=1)
        a, b = self.second(x).chunk(2, dim=1)
        x = self.third(a * b)
        x = x.view(x.shape[0], 12, 3, *x.shape[2:]).amax(2)
        return self.head(x)


@case("selective-kernel", images(3, 16, 16))
class SelectiveKernel(nn.Module):
    """Softmax over branches, per channel: stack, squeeze, one linear map per branch (SKNet)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.small, self.large = conv(3, 24), conv(24, 24), conv(24, 24, 5)
        self.squeeze, self.choose, self.head = (
            nn.Linear(24, 12),
            nn.ModuleList(nn.Linear(12, 24) for _ in range(2)),
            Head(24),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        branches = torch.stack([self.small(x), self.large(x)], dim=1)
        z = F.relu(self.squeeze(branches.sum(1).mean((-1, -2))))
        weights = torch.stack([choose(z) for choose in self.choose], dim=1).softmax(1)
        return self.head((branches * weights[..., None, None]).sum(1))


@case("film", together(images(3, 16, 16), images(7)))
class Film(nn.Module):
    """A second input scales and shifts every channel (Perez et al. 2018)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body, self.norm, self.head = (
            conv(3, 24),
            nn.Conv2d(24, 24, 3),
            nn.BatchNorm2d(24, affine=False),
            Head(24),
        )
        self.condition = nn.Sequential(nn.Linear(7, 32), nn.ReLU(), nn.Linear(32, 48))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        scale, shift = self.condition(context).chunk(2, -1)
        x = self.norm(self.body(self.stem(x)))
        return self.head(F.relu((1 + scale[:, :, None, None]) * x + shift[:, :, None, None]))


@case("coordinate-attention", images(3, 16, 16))
class CoordinateAttention(nn.Module):
    """Pooled rows and columns joined along space, transformed together, split again (Hou et al. 2021)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.squeeze, self.head = conv(3, 24), conv(24, 8, 1), Head(24)
        self.rows, self.columns = nn.Conv2d(8, 24, 1), nn.Conv2d(8, 24, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        height, width = x.shape[-2:]
        y = torch.cat([x.mean(3, keepdim=True), x.mean(2, keepdim=True).permute(0, 1, 3, 2)], dim=2)
        rows, columns = torch.split(self.squeeze(y), [height, width], dim=2)
        return self.head(x * self.rows(rows).sigmoid() * self.columns(columns.permute(0, 1, 3, 2)).sigmoid())


@case("highway", images(20))
class Highway(nn.Module):
    """y = t * h + (1 - t) * x with packed h and t, BatchNorm1d between."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm, self.out = nn.Linear(20, 48), nn.BatchNorm1d(48), nn.Linear(48, 10)
        self.layers = nn.ModuleList(nn.Linear(48, 96) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x))
        for layer in self.layers:
            y = layer(x)
            gate = y[:, 48:].sigmoid()
            x = gate * F.relu(y[:, :48]) + (1.0 - gate) * x
        return self.out(x)


@case("nonlocal", images(3, 16, 16))
class NonLocal(nn.Module):
    """Attention between pixels by 1x1 convolutions and batched products (Wang et al. 2018)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.out, self.head = conv(3, 32, stride=2), nn.Conv2d(16, 32, 1), Head(32)
        self.theta, self.phi, self.g = (nn.Conv2d(32, 16, 1) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        batch, _, height, width = x.shape
        theta = self.theta(x).view(batch, 16, -1).permute(0, 2, 1)
        phi, g = self.phi(x).view(batch, 16, -1), self.g(x).view(batch, 16, -1).permute(0, 2, 1)
        y = torch.bmm(F.softmax(torch.bmm(theta, phi), dim=-1), g)
        return self.head(x + self.out(y.permute(0, 2, 1).contiguous().view(batch, 16, height, width)))


@case("dynamic-filter", images(3, 12, 12))
class DynamicFilter(nn.Module):
    """Experts' kernels mixed by a softmax gate over the batch mean, then used as one (CondConv-like)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.gate, self.head = conv(3, 16), nn.Linear(16, 4), Head(24)
        self.experts = nn.Parameter(torch.randn(4, 24, 16, 3, 3) * 0.1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        gate = self.gate(x.mean((0, 2, 3))).softmax(-1)
        return self.head(F.conv2d(x, (gate.view(4, 1, 1, 1, 1) * self.experts).sum(0), padding=1))


@case("wavenet", images(1, 64))
class WaveNet(nn.Module):
    """Gated tanh units from one packed convolution; residual and skip from another."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv1d(1, 16, 1)
        self.gates = nn.ModuleList(nn.Conv1d(16, 64, 3, padding=d, dilation=d) for d in (1, 2, 4))
        self.mixes = nn.ModuleList(nn.Conv1d(32, 16 + 24, 1) for _ in range(3))
        self.hidden, self.out = nn.Conv1d(24, 24, 1), nn.Conv1d(24, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x, skips = self.stem(x), 0
        for gate, mix in zip(self.gates, self.mixes, strict=True):
            a, b = gate(x).split(32, dim=1)
            residual, skip = mix(a.tanh() * b.sigmoid()).split([16, 24], dim=1)
            x, skips = x + residual, skips + skip
        return self.out(F.relu(self.hidden(F.relu(skips))))


@case("hyper-connections", images(3, 16, 16))
class HyperConnections(nn.Module):
    """Four copies of the residual stream, mixed by small learned matrices around each block."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 20, 3, padding=1), Head(20)
        self.blocks = nn.ModuleList(nn.Sequential(conv(20, 40), nn.Conv2d(40, 20, 1)) for _ in range(3))
        self.read = nn.ParameterList(torch.rand(4) for _ in range(3))
        self.mix = nn.ParameterList(torch.eye(4) + 0.1 * torch.rand(4, 4) for _ in range(3))
        self.write = nn.ParameterList(torch.rand(4) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        streams = self.stem(x).unsqueeze(1).repeat(1, 4, 1, 1, 1)
        for block, read, mix, write in zip(self.blocks, self.read, self.mix, self.write, strict=True):
            y = block((read.view(1, 4, 1, 1, 1) * streams).sum(1))
            streams = torch.einsum("st,btchw->bschw", mix, streams) + write.view(1, 4, 1, 1, 1) * y.unsqueeze(
                1
            )
        return self.head(streams.sum(1))
