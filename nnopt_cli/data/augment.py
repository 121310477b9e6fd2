"""Random changes to training batches: mirror images, shifted crops, mixtures; and normalisation."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nnopt_cli.data.table import Array
from nnopt_cli.errors import UsageError
from nnopt_cli.model.naming import suggest

if TYPE_CHECKING:
    from torch import Tensor

STATISTICS = {  # mean and standard deviation of RGB, after division by 255
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
}
_PARTS = ("flip", "crop", "mixup")


@dataclass(frozen=True)
class Normalize:
    """`(x - mean) / std` for every channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def parse(cls, text: str) -> Normalize | None:
        """Read `imagenet`, `cifar10`, `none`, `MEAN/STD` or `R,G,B/R,G,B`. Raises UsageError."""
        if text in STATISTICS:
            return cls(*STATISTICS[text])
        if text == "none":
            return None
        mean, slash, std = text.partition("/")
        try:
            found = cls(*(tuple(float(part) for part in side.split(",")) for side in (mean, std)))
        except ValueError:
            found = cls((), ())
        if not slash or not found.mean or len(found.mean) != len(found.std):
            raise UsageError(
                f"--normalize {text!r}: is neither imagenet, cifar10, none nor MEAN/STD",
                suggest(text, [*STATISTICS, "none"]) or "For example 0.5/0.25, or one number per channel.",
            )
        if not all(value > 0 for value in found.std):
            raise UsageError(f"--normalize {text!r}: a standard deviation must be positive")
        return found

    def apply(self, images: Tensor) -> Tensor:
        """Normalise `images` (batch x channels x …, floating) in place and return it."""
        gain, shift = self._line(images.shape[1], 1.0)
        shape = (1, -1, *[1] * (images.dim() - 2))
        return images.mul_(gain.to(images).reshape(shape)).add_(shift.to(images).reshape(shape))

    def pixels(self, pixels: Tensor) -> Tensor:
        """Normalise `pixels / 255` (batch x height x width x channels, bytes); float32, laid out the same."""
        import torch

        gain, shift = (
            each.to(pixels.device, torch.float32).repeat(pixels[0].numel() // pixels.shape[-1])
            for each in self._line(pixels.shape[-1], 1 / 255)
        )
        flat = pixels.reshape(len(pixels), -1).to(torch.float32)
        # along whole images, not along three channels: several times faster on a CPU
        return torch.addcmul(shift, flat, gain, out=flat).reshape(pixels.shape)

    def _line(self, channels: int, scale: float) -> tuple[Tensor, Tensor]:
        """Gain and shift of every channel, in float64: `(scale x - mean) / std` is `gain x + shift`."""
        import torch

        mean, std = (
            torch.tensor(side, dtype=torch.float64).expand(channels) for side in (self.mean, self.std)
        )
        return scale / std, -mean / std


@dataclass(frozen=True)
class Augment:
    """What is done to training batches, drawn anew for every batch.

    Attributes:
        flip: mirror every second image, on average, left to right.
        crop: pad images by so many pixels of zero and cut a random window of their old size; -1 stands
            for an eighth of the height.
        mixup: alpha of the beta distribution of mixtures of two samples and their targets (Zhang et al.
            2018, arXiv:1710.09412); 0 for none.
    """

    flip: bool = False
    crop: int = 0
    mixup: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Augment:
        """Read `flip,crop,mixup`; `crop=4` and `mixup=0.2` set the figures. Raises UsageError."""
        values: dict[str, Any] = {}
        for part in filter(None, (part.strip() for part in text.split(","))):
            name, _, value = part.partition("=")
            if name not in _PARTS or (value and name == "flip"):
                raise UsageError(
                    f"--augment {text!r}: {part!r} is not one of flip, crop, crop=PIXELS, mixup, mixup=ALPHA",
                    suggest(name, _PARTS) or None,
                )
            if value and not re.fullmatch(r"\d+" if name == "crop" else r"\d*\.?\d+", value):
                raise UsageError(f"--augment {text!r}: {value!r} is no number that {name} takes")
            if name == "flip":
                values["flip"] = True
            elif name == "crop":
                values["crop"] = int(value) if value else -1
            else:
                values["mixup"] = float(value) if value else 0.2  # the paper's choice for ImageNet
        return cls(**values)

    def __bool__(self) -> bool:
        return bool(self.flip or self.crop or self.mixup)

    def images(self, images: Array, draw: np.random.Generator) -> Array:
        """Flip and crop a batch: images x height x width x channels."""
        if self.crop:
            images = _cropped(images, self.crop if self.crop > 0 else images.shape[1] // 8, draw)
        if self.flip:
            mirrored = draw.random(len(images)) < 0.5
            images = images if self.crop else images.copy()
            images[mirrored] = images[mirrored, :, ::-1]
        return images

    def mixed(self, parts: list[Tensor], target: Tensor, draw: np.random.Generator) -> Tensor:
        """Mix every floating tensor of `parts` with itself in another order, in place; returns the targets.

        `target` must be floating too: one-hot for classes.
        """
        import torch

        share = float(draw.beta(self.mixup, self.mixup))
        order = torch.from_numpy(draw.permutation(len(target))).to(target.device)
        for part in parts:
            if part.is_floating_point():
                part.lerp_(part[order], 1 - share)
        return target.lerp(target[order], 1 - share)


def _cropped(images: Array, pad: int, draw: np.random.Generator) -> Array:
    count, height, width, _ = images.shape
    padded = np.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    tops, lefts = draw.integers(0, 2 * pad + 1, (2, count))
    out = np.empty_like(images)
    for i in range(count):
        out[i] = padded[i, tops[i] : tops[i] + height, lefts[i] : lefts[i] + width]
    return out
