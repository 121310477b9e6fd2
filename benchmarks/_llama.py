"""The tensors and the configuration of a Llama of any size, which mergekit knows."""

from __future__ import annotations

import json
from dataclasses import dataclass


@dataclass(frozen=True)
class Llama:
    """Its sizes.

    Attributes:
        width: of the hidden states.
        inner: of the layers between.
        words: in its vocabulary.
        layers: how many.
        heads: of attention, in every layer.
    """

    width: int
    inner: int
    words: int
    layers: int
    heads: int

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor."""
        out: dict[str, tuple[int, ...]] = {
            "model.embed_tokens.weight": (self.words, self.width),
            "model.norm.weight": (self.width,),
            "lm_head.weight": (self.words, self.width),
        }
        for layer in range(self.layers):
            home = f"model.layers.{layer}"
            out |= {f"{home}.{name}_layernorm.weight": (self.width,) for name in ("input", "post_attention")}
            out |= {f"{home}.self_attn.{name}_proj.weight": (self.width, self.width) for name in "qkvo"}
            out |= {f"{home}.mlp.{name}_proj.weight": (self.inner, self.width) for name in ("gate", "up")}
            out[f"{home}.mlp.down_proj.weight"] = (self.width, self.inner)
        return out

    def config(self) -> str:
        """What stands in its `config.json`."""
        return json.dumps(
            {
                **{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16"},
                **{"hidden_size": self.width, "intermediate_size": self.inner, "vocab_size": self.words},
                **{"num_hidden_layers": self.layers},
                **{"num_attention_heads": self.heads, "num_key_value_heads": self.heads},
            }
        )
