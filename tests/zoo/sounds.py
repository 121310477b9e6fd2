"""transformers' networks for sound, time series, and several kinds of input."""

from __future__ import annotations

from .case import Case, images, together, tokens
from .tiny import HIDDEN, SMALL, VISION, tiny

AUDIO = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "conv_dim": [32, 32, 32],
    "conv_stride": [5, 2, 2],
    "conv_kernel": [10, 3, 3],
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "vocab_size": 32,
}
TEXT = {
    "vocab_size": 99,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "max_position_embeddings": 64,
    "eos_token_id": 98,
}

CASES: list[Case] = [
    tiny("wav2vec2", "Wav2Vec2ForCTC", AUDIO, inputs=images(800), names=("input_values",)),
    tiny(
        "wav2vec2-layernorm",
        "Wav2Vec2ForCTC",
        {**AUDIO, "feat_extract_norm": "layer", "do_stable_layer_norm": True},
        inputs=images(800),
        names=("input_values",),
    ),
    tiny("hubert", "HubertForCTC", AUDIO, inputs=images(800), names=("input_values",)),
    tiny("wavlm", "WavLMForCTC", AUDIO, inputs=images(800), names=("input_values",)),
    tiny("sew", "SEWForCTC", {**AUDIO, "squeeze_factor": 2}, inputs=images(800), names=("input_values",)),
    tiny(
        "audio-spectrogram",
        "ASTForAudioClassification",
        {
            **VISION,
            "max_length": 64,
            "num_mel_bins": 16,
            "patch_size": 8,
            "frequency_stride": 8,
            "time_stride": 8,
        },
        inputs=images(64, 16),
        names=("input_values",),
    ),
    tiny(
        "clip",
        "CLIPModel",
        {"text_config": TEXT, "vision_config": VISION, "projection_dim": 32},
        inputs=together(tokens(99, 8), SMALL),
        names=("input_ids", "pixel_values"),
        outputs=("logits_per_image", "text_embeds", "image_embeds"),
    ),
    tiny(
        "siglip",
        "SiglipModel",
        {"text_config": TEXT, "vision_config": VISION},
        inputs=together(tokens(99, 8), SMALL),
        names=("input_ids", "pixel_values"),
        outputs=("logits_per_image",),
    ),
    tiny(
        "patchtst",
        "PatchTSTForPrediction",
        {
            "num_input_channels": 3,
            "context_length": 32,
            "prediction_length": 8,
            "patch_length": 4,
            "patch_stride": 4,
            "d_model": 32,
            "num_attention_heads": 4,
            "ffn_dim": 64,
            "num_hidden_layers": 2,
            "loss": "mse",
        },
        inputs=images(32, 3),
        names=("past_values",),
        outputs=("prediction_outputs",),
    ),
    tiny(
        "patchtsmixer",
        "PatchTSMixerForPrediction",
        {
            "num_input_channels": 3,
            "context_length": 32,
            "prediction_length": 8,
            "patch_length": 4,
            "patch_stride": 4,
            "d_model": 32,
            "num_layers": 2,
        },
        inputs=images(32, 3),
        names=("past_values",),
        outputs=("prediction_outputs",),
    ),
    tiny(
        "decision-transformer",
        "DecisionTransformerModel",
        {"state_dim": 7, "act_dim": 3, "hidden_size": 64, "n_layer": 2, "n_head": 4, "max_ep_len": 64},
        inputs=together(images(5, 7), images(5, 3), images(5, 1), images(5, 1), tokens(20, 5)),
        names=("states", "actions", "rewards", "returns_to_go", "timesteps"),
        outputs=("action_preds",),
    ),
    tiny(
        "perceiver",
        "PerceiverModel",
        {
            "num_latents": 8,
            "d_latents": 32,
            "d_model": 16,
            "num_blocks": 1,
            "num_self_attends_per_block": 2,
            "num_self_attention_heads": 4,
            "num_cross_attention_heads": 1,
        },
        inputs=images(20, 16),
        names=("inputs",),
        outputs=HIDDEN,
        most=0.6,
    ),
    tiny(
        "graphormer-free-bertgeneration",
        "BertGenerationDecoder",
        config="BertGenerationConfig",
        is_decoder=True,
    ),
]
