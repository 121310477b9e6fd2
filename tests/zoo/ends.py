"""Hand-written networks with other inputs, outputs and numbers of dimensions."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from .blocks import conv
from .case import Case, hand, images, together

CASES: list[Case] = []
case = hand(CASES)


@case("two-heads", images(3, 16, 16))
class TwoHeads(nn.Module):
    """One body, a classifier and a regressor, returned as a dictionary with the features' norm."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(3, 24), conv(24, 48, stride=2), conv(48, 48))
        self.classify, self.hidden, self.regress = nn.Linear(48, 10), nn.Linear(48, 32), nn.Linear(32, 4)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.body(x).mean((-2, -1))
        return {
            "logits": self.classify(x),
            "box": self.regress(F.elu(self.hidden(x))),
            "norm": x.norm(dim=-1),
        }


@case("autoencoder", images(3, 16, 16))
class Autoencoder(nn.Module):
    """The output is the input's shape, and the code is an output too: both stay whole."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Sequential(conv(3, 16, stride=2), conv(16, 32, stride=2), nn.Conv2d(32, 8, 1))
        self.decode = nn.Sequential(
            conv(8, 32),
            nn.Upsample(scale_factor=2),
            conv(32, 16),
            nn.Upsample(scale_factor=2, mode="bilinear"),
            nn.Conv2d(16, 3, 3, padding=1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        code = self.encode(x)
        return self.decode(code), code


@case("siamese", together(images(3, 16, 16), images(3, 16, 16)))
class Siamese(nn.Module):
    """Two images through one tower; their difference, product and concatenation are compared."""

    def __init__(self) -> None:
        super().__init__()
        self.tower = nn.Sequential(conv(3, 24), conv(24, 32, stride=2), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.compare = nn.Sequential(nn.Linear(128, 32), nn.ReLU(), nn.Linear(32, 1))

    def forward(self, one: Tensor, two: Tensor) -> tuple[Tensor, Tensor]:
        a, b = self.tower(one), self.tower(two)
        return self.compare(torch.cat([a, b, (a - b).abs(), a * b], 1)), F.cosine_similarity(a, b)


@case("lenet", images(1, 28, 28))
class LeNet(nn.Sequential):
    """Convolutions flattened into linear layers: each channel is a run of columns."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 6, 5, padding=2),
            nn.Tanh(),
            nn.AvgPool2d(2),
            nn.Conv2d(6, 16, 5),
            nn.Tanh(),
            nn.AvgPool2d(2),
            nn.Flatten(),
            nn.Linear(400, 120),
            nn.Tanh(),
            nn.Linear(120, 84),
            nn.Tanh(),
            nn.Linear(84, 10),
            nn.LogSoftmax(1),
        )


@case("temporal", images(4, 40))
class Temporal(nn.Module):
    """Causal dilated 1-D convolutions, each padded on the left or trimmed on the right (TCN)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv1d(4, 24, 1)
        self.layers = nn.ModuleList(nn.Conv1d(24, 24, 3, padding=2 * d, dilation=d) for d in (1, 2, 4))
        self.last, self.out = nn.Conv1d(24, 32, 2), nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for layer in self.layers:
            x = F.relu(x + layer(x)[:, :, : x.shape[2]])
        x = F.relu(self.last(F.pad(x, (1, 0))))
        return self.out(x[:, :, -1])


@case("volume", images(1, 8, 16, 16))
class Volume(nn.Module):
    """A 3-D net with a factorised (2+1)-D convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv3d(1, 16, 3, padding=1), nn.BatchNorm3d(16), nn.ReLU())
        self.space, self.time = (
            nn.Conv3d(16, 20, (1, 3, 3), padding=(0, 1, 1)),
            nn.Conv3d(20, 16, (3, 1, 1), padding=(1, 0, 0)),
        )
        self.down, self.up, self.out = (
            nn.Conv3d(16, 32, 2, 2),
            nn.ConvTranspose3d(32, 16, 2, 2),
            nn.Conv3d(32, 2, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + F.relu(self.time(F.relu(self.space(x))))
        return self.out(torch.cat([x, self.up(F.max_pool3d(self.down(x), 1))], 1))


@case("aspp", images(3, 16, 16))
class Aspp(nn.Module):
    """Dilated branches and an image-level branch that is upsampled, concatenated (DeepLab v3)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 32)
        self.branches = nn.ModuleList([conv(32, 16, 1), *(conv(32, 16, dilation=d) for d in (2, 3, 4))])
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(32, 16, 1), nn.ReLU())
        self.project, self.out = conv(80, 24, 1), nn.Conv2d(24, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        pooled = F.interpolate(self.pool(x), size=x.shape[-2:], mode="bilinear", align_corners=False)
        y = torch.cat([*(branch(x) for branch in self.branches), pooled], 1)
        return F.interpolate(self.out(self.project(y)), scale_factor=2, mode="bilinear", align_corners=False)


@case("pointnet", images(3, 50))
class PointNet(nn.Module):
    """A predicted 3x3 transform of the points, 1-D convolutions, a maximum over points joined back on."""

    def __init__(self) -> None:
        super().__init__()
        self.spot = nn.Sequential(nn.Conv1d(3, 24, 1), nn.ReLU(), nn.Conv1d(24, 32, 1), nn.ReLU())
        self.transform = nn.Linear(32, 9)
        self.local, self.wide = nn.Conv1d(3, 24, 1), nn.Conv1d(24, 48, 1)
        self.join, self.out = nn.Conv1d(72, 32, 1), nn.Conv1d(32, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        matrix = self.transform(torch.max(self.spot(x), 2)[0]).view(-1, 3, 3) + torch.eye(3)
        x = torch.bmm(x.transpose(2, 1), matrix).transpose(2, 1)
        local = F.relu(self.local(x))
        whole = torch.max(self.wide(local), 2, keepdim=True)[0].repeat(1, 1, x.shape[2])
        return self.out(F.relu(self.join(torch.cat([local, whole], 1))))
