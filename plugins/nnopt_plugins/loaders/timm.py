"""`--arch timm:NAME`: the networks of Ross Wightman's PyTorch Image Models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nnopt_cli import Loader, UsageError, option, suggest
from nnopt_plugins.loaders.packages import need

if TYPE_CHECKING:
    from torch import nn


class Timm(Loader):
    """A network of timm, by the name that timm.create_model takes, such as timm:resnet18."""

    name = "timm"

    model: str = option(help="Its name in timm.", metavar="NAME")

    def build(self, **arguments: Any) -> nn.Module:
        """The network without its published weights; arguments such as num_classes=10 go to timm."""
        timm = need("timm", f"timm:{self.model}")
        if not timm.is_model(self.model.partition(".")[0]):
            hint = suggest(self.model, timm.list_models()) or "`timm.list_models()` lists them."
            raise UsageError(f"--arch timm:{self.model}: timm has no network of that name", hint)
        network: nn.Module = timm.create_model(self.model, **{**arguments, "pretrained": False})
        return network
