"""`--arch torchvision:NAME`: the networks of torchvision.models."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from typing import TYPE_CHECKING, Any

from nnopt_cli import Loader, UsageError, option, suggest
from nnopt_plugins.loaders.packages import need

if TYPE_CHECKING:
    from torch import nn

_SCHEMA = "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


class Torchvision(Loader):
    """A network of torchvision, by the name that torchvision.models.get_model takes."""

    name = "torchvision"

    model: str = option(help="Its name in torchvision.models.", metavar="NAME")

    def build(self, **arguments: Any) -> nn.Module:
        """The network without its published weights; arguments such as num_classes=10 go to torchvision."""
        spec = f"torchvision:{self.model}"
        _declare_operators()
        need("torchvision", spec)
        models = importlib.import_module("torchvision.models")
        try:
            builder = models.get_model_builder(self.model)
        except ValueError:
            hint = suggest(self.model.lower(), models.list_models())
            message = f"--arch {spec}: torchvision has no network of that name"
            raise UsageError(message, hint or "`torchvision.models.list_models()` lists them.") from None
        bare = [key for key in inspect.signature(builder).parameters if key.startswith("weights")]
        network: nn.Module = builder(**{**arguments, **dict.fromkeys(bare)})
        return network


def _declare_operators() -> None:
    """Let torchvision import where its compiled operators do not load, as a CUDA build on a CPU-only PyTorch.

    Its import registers fake kernels for `nms` and `qnms`, which fails where nothing declared these. With
    a declaration and no implementation, all networks work but those that call them (detection).
    """
    import torch

    if "torchvision" in sys.modules or importlib.util.find_spec("torchvision") is None:
        return
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        for schema in (_SCHEMA, f"q{_SCHEMA}"):
            torch.library.define(f"torchvision::{schema.partition('(')[0]}", schema[schema.index("(") :])
