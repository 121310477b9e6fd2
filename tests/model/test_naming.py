"""The rule about names, on names as they occur in published models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nnopt_cli import MemoryWeight, Model, UsageError
from nnopt_cli.formats.checkpoint import Container
from nnopt_cli.formats.dtypes import dtype_named
from nnopt_cli.model.naming import match, select, suggest


def weight(name: str, *shape: int, dtype: str = "float32") -> MemoryWeight:
    return MemoryWeight(name, dtype_named(dtype), np.zeros(shape, dtype_named(dtype).word))


def model(*weights: MemoryWeight, **tied: MemoryWeight) -> Model:
    named = {w.name: w for w in weights} | {name.replace("__", "."): w for name, w in tied.items()}
    return Model(named, Container(Path("m.pt"), "torch", ()))


PRUNABLE = [
    ("conv1.weight", 4),
    ("layer4.1.downsample.0.weight", 4),
    ("linear.weight", 2),
    ("fc.weight", 2),
    ("weight", 2),
    ("lm_head.weight", 2),
    ("embed_out.weight", 2),
    ("patch_embed.proj.weight", 4),
    ("vit.embeddings.patch_embeddings.projection.weight", 4),
    ("time_embed.0.weight", 2),
    ("norm1.linear.weight", 2),
    ("attn.in_proj_weight", 2),
    ("lstm.weight_ih_l0", 2),
    ("experts.gate_up_proj", 3),
    ("model.layers.0.self_attn.q_proj.weight", 2),
    ("h.0.attn.c_attn.weight", 2),
    ("text_projection", 2),
    ("conv.weight_v", 4),
    ("conv.parametrizations.weight.original1", 4),
    ("Dense_0.kernel", 2),
    ("enormous.weight", 2),  # holds `norm`, is none
    ("balanced_bn_free_linear.weight", 2),
]
LEFT_OUT = [
    ("model.embed_tokens.weight", 2, "embedding"),
    ("transformer.wte.weight", 2, "embedding"),
    ("wpe.weight", 2, "embedding"),
    ("tok_embeddings.weight", 2, "embedding"),
    ("bert.embeddings.word_embeddings.weight", 2, "embedding"),
    ("shared.weight", 2, "embedding"),
    ("pos_embed", 3, "embedding"),
    ("positional_embedding", 2, "embedding"),
    ("cls_token", 3, "embedding"),
    ("pos_encoder.pe", 3, "embedding"),
    ("block.0.layer.0.SelfAttention.relative_attention_bias.weight", 2, "bias"),
    ("attn.relative_position_bias_table", 2, "bias"),
    ("h.0.attn.bias", 4, "bias"),
    ("encoder.norm1.weight", 2, "norm"),
    ("bert.embeddings.LayerNorm.weight", 2, "norm"),
    ("ln_f.weight", 2, "norm"),
    ("model.layers.0.input_layernorm.weight", 2, "norm"),
    ("bn2.weight", 4, "norm"),
    ("gamma", 4, "scale"),
    ("conv.weight_g", 3, "scale"),
    ("conv.parametrizations.weight.original0", 4, "weight norm's magnitude"),
    ("layers.0.attn_mask", 3, "mask"),
]


@pytest.mark.parametrize(("name", "dimensions"), PRUNABLE)
def test_prunable(name: str, dimensions: int) -> None:
    assert select(model(weight(name, *[2] * dimensions))).names == (name,)


@pytest.mark.parametrize(("name", "dimensions", "reason"), LEFT_OUT)
def test_left_out(name: str, dimensions: int, reason: str) -> None:
    found = select(model(weight(name, *[2] * dimensions)))
    assert found.names == ()
    assert found.left_out[name] == reason


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_floats_of_two_dimensions(dtype: str) -> None:
    assert select(model(weight("a.weight", 2, 2, dtype=dtype))).names == ("a.weight",)
    assert select(model(weight("a.weight", 4, dtype=dtype))).left_out == {"a.weight": "1 dimension"}


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int64", "bool", "complex64", "float8_e4m3fn"])
def test_other_types(dtype: str) -> None:
    assert dtype in select(model(weight("a.weight", 2, 2, dtype=dtype))).left_out["a.weight"]


def test_a_head_tied_to_an_embedding_is_an_embedding() -> None:
    table = weight("model.embed_tokens.weight", 4, 4)
    for tied in (
        model(table, lm_head__weight=table),
        model(weight("x", 1), lm_head__weight=table, wte__weight=table),
    ):
        assert "embedding" in select(tied).left_out.values()
        assert select(tied).names == ()


def test_globs_choose_and_exact_names_override_the_rule_about_names_only() -> None:
    whole = model(
        weight("a.weight", 2, 2),
        weight("b.weight", 2, 2),
        weight("embed.weight", 2, 2),
        weight("a.bias", 2),
        weight("ids", 2, 2, dtype="int64"),
    )
    assert select(whole, ["?.weight"]).names == ("a.weight", "b.weight")
    assert select(whole, ["*"]).names == ("a.weight", "b.weight")
    assert select(whole, ["*", "embed.weight"]).names == ("a.weight", "b.weight", "embed.weight")
    assert select(whole, ["ids", "a.bias", "a.weight"]).names == ("a.weight",)
    found = select(whole, ["a.*"], ["*.weight"])
    assert found.names == ()
    assert found.left_out["a.weight"] == "excluded by '*.weight'"
    assert found.left_out["b.weight"] == "not included"
    assert set(found.names) | set(found.left_out) == set(whole.weights)


def test_a_tied_weight_is_matched_by_any_of_its_names() -> None:
    one = weight("a.weight", 2, 2)
    tied = model(one, weight("b.weight", 2, 2), c__weight=one)
    assert select(tied, ["c.*"]).names == ("a.weight",)
    assert select(tied, [], ["c.*"]).names == ("b.weight",)


def test_globs_are_case_sensitive_and_names_with_brackets_match_themselves() -> None:
    assert match(["Layer.w", "layer.w"], "layer.*") == ["layer.w"]
    assert match(["w[0]", "w0"], "w[0]") == ["w[0]", "w0"]


@pytest.mark.parametrize(
    ("glob", "hint"),
    [("layr4.*", "'layer4.*'"), ("layer4.wieght", "'layer4.weight'"), ("zzz", "nnopt inspect")],
)
def test_a_glob_that_matches_nothing_names_close_ones(glob: str, hint: str) -> None:
    whole = model(weight("layer4.weight", 2, 2), weight("layer3.weight", 2, 2))
    for include, exclude in (([glob], []), ([], [glob])):
        with pytest.raises(UsageError) as caught:
            select(whole, include, exclude)
        assert repr(glob) in caught.value.message
        assert hint in str(caught.value.hint)


def test_suggest() -> None:
    assert suggest("magntude", ["magnitude", "random"]) == "Did you mean 'magnitude'?"
    assert suggest("xyz", ["magnitude"]) == ""
