"""torchvision's classification, segmentation, video and optical-flow networks with random weights."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from operator import attrgetter
from typing import Any

import torch
from torch import nn

from .case import Case, images, together

CASES: list[Case] = []


_declared: list[torch.library.Library] = []  # a library lives as long as its object


def torchvision() -> Any:
    """The package, importable also where its compiled operators are missing.

    Its wheels are linked against a CUDA build of PyTorch. On a CPU-only one they do not load, and the
    import then fails where fake kernels are registered for two undeclared operators. Once these are
    declared, all models in pure Python work.
    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError:
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
    library = torch.library.Library("torchvision", "FRAGMENT")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _declared.append(library)
    return importlib.import_module("torchvision")


def add(
    name: str, make: Callable[[Any], nn.Module], inputs: Any = None, most: float = 0.45, measured: int = 4
) -> None:
    """A case whose network `make` builds from `torchvision.models`."""
    inputs, network = inputs or images(3, 64, 64), lambda: make(torchvision().models)
    CASES.append(Case(name, "torchvision", network, inputs, most, "torchvision", measured=measured))


def named(function: str, **options: Any) -> Callable[[Any], nn.Module]:
    """Builds `torchvision.models.<function>` without weights."""
    return lambda models: attrgetter(function)(models)(weights=None, **options)


for function in (
    *(
        "resnet18",
        "resnet50",
        "wide_resnet50_2",
        "resnext50_32x4d",
        "vgg11_bn",
        "densenet121",
        "squeezenet1_1",
    ),
    *("mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large", "mnasnet1_0", "shufflenet_v2_x1_0"),
    *("efficientnet_b0", "regnet_x_400mf", "regnet_y_400mf", "convnext_tiny"),
    *("swin_t", "swin_v2_t"),
):
    add(function.replace("_", "-"), named(function))
add("efficientnet-v2-s", named("efficientnet_v2_s"), measured=32)
add("vgg16", named("vgg16"), images(3, 32, 32))
add("alexnet", named("alexnet"), images(3, 96, 96))
add("googlenet", named("googlenet", init_weights=False, aux_logits=False))
add("inception-v3", named("inception_v3", init_weights=False, aux_logits=False), images(3, 96, 96))
add("vit-b-16", named("vit_b_16", image_size=64))
MAXVIT = {  # maxvit_t, but for the size of its images
    "stem_channels": 64,
    "block_channels": [64, 128, 256, 512],
    "block_layers": [2, 2, 5, 2],
    "head_dim": 32,
    "stochastic_depth_prob": 0.2,
}
add("maxvit-t", lambda models: models.MaxVit(input_size=(64, 64), partition_size=2, **MAXVIT))
SEGMENTATION = (
    "deeplabv3_resnet50",
    "fcn_resnet50",
    "deeplabv3_mobilenet_v3_large",
    "lraspp_mobilenet_v3_large",
)
for function in SEGMENTATION:
    add(function.replace("_", "-"), named(f"segmentation.{function}", weights_backbone=None))
for function in ("r3d_18", "mc3_18", "r2plus1d_18"):
    add(function.replace("_", "-"), named(f"video.{function}"), images(3, 8, 32, 32))
add("mvit-v2-s", named("video.mvit_v2_s"), images(3, 16, 224, 224), 0.7)
PAIR = together(images(3, 128, 128), images(3, 128, 128))
add("raft-small", named("optical_flow.raft_small"), PAIR, 0.7)
