"""`--arch torchvision:NAME`: the networks of torchvision.models."""

from __future__ import annotations

import importlib
import inspect
from typing import TYPE_CHECKING, Any

from nnopt_cli import Loader, UsageError, option, suggest
from nnopt_plugins.loaders.packages import need

if TYPE_CHECKING:
    from torch import nn


class Torchvision(Loader):
    """A network of torchvision, by the name that torchvision.models.get_model takes."""

    name = "torchvision"

    model: str = option(help="Its name in torchvision.models.", metavar="NAME")

    def build(self, **arguments: Any) -> nn.Module:
        """The network without its published weights; arguments such as num_classes=10 go to torchvision."""
        spec = f"torchvision:{self.model}"
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
