"""Networks of `transformers` with tiny configurations and random weights."""

from __future__ import annotations

import importlib.util
from typing import Any

from torch import Tensor, nn

from .case import Case, Inputs, images, tokens
from .vision import torchvision

Settings = dict[str, Any]

TINY: Settings = {
    "vocab_size": 99,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "max_position_embeddings": 64,
    "use_cache": False,
}
VISION: Settings = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "image_size": 32,
    "patch_size": 8,
    "num_labels": 10,
}
HIDDEN = ("last_hidden_state",)
PIXELS = ("pixel_values",)
SMALL = images(3, 32, 32)
SPREAD = 0.1  # of initial weights: with the usual 0.02, networks as small as these fade


class Call(nn.Module):
    """A network called by keywords, giving some of its outputs."""

    def __init__(self, net: nn.Module, names: tuple[str, ...], outputs: tuple[str, ...]) -> None:
        super().__init__()
        self.net, self.names, self.outputs = net, names, outputs

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        result = self.net(**dict(zip(self.names, inputs, strict=True)))
        return tuple(result[name] for name in self.outputs)


def tiny(
    name: str,
    model: str,
    settings: Settings = TINY,
    *,
    config: str = "",
    inputs: Inputs = tokens(99, 12),  # noqa: B008
    names: tuple[str, ...] = ("input_ids",),
    outputs: tuple[str, ...] = ("logits",),
    attention: str = "eager",
    most: float = 0.45,
    **more: Any,
) -> Case:
    """A case from the names of a model's class and its configuration's, and what the latter is set to."""

    def build() -> nn.Module:
        if importlib.util.find_spec("torchvision"):
            torchvision()  # transformers imports it where it is installed
        import transformers

        stem = model.split("For")[0].removesuffix("Model")
        kind = getattr(transformers, config or f"{stem}Config")
        made = kind(**{**settings, **more})
        made._attn_implementation = attention
        made._experts_implementation = "batched_mm"  # of plain operators
        for part in (made, getattr(made, "text_config", None), getattr(made, "vision_config", None)):
            if hasattr(part, "initializer_range"):
                part.initializer_range = SPREAD
        return Call(getattr(transformers, model)(made), names, outputs)

    return Case(name, "transformers", build, inputs, most, "transformers")
