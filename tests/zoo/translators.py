"""transformers' encoders with decoders."""

from __future__ import annotations

from .case import Case, images, together, tokens
from .tiny import tiny

SEQ2SEQ = {
    "vocab_size": 99,
    "d_model": 64,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 128,
    "decoder_ffn_dim": 128,
    "max_position_embeddings": 64,
    "use_cache": False,
}

CASES: list[Case] = [
    tiny(
        "t5",
        "T5ForConditionalGeneration",
        {
            "vocab_size": 99,
            "d_model": 64,
            "d_kv": 16,
            "d_ff": 128,
            "num_layers": 2,
            "num_heads": 4,
            "use_cache": False,
        },
        inputs=tokens(99, 10, 2),
        names=("input_ids", "decoder_input_ids"),
    ),
    tiny(
        "t5-gated",
        "T5ForConditionalGeneration",
        {
            "vocab_size": 99,
            "d_model": 64,
            "d_kv": 16,
            "d_ff": 128,
            "num_layers": 2,
            "num_heads": 4,
            "feed_forward_proj": "gated-gelu",
            "tie_word_embeddings": False,
            "use_cache": False,
        },
        inputs=tokens(99, 10, 2),
        names=("input_ids", "decoder_input_ids"),
    ),
    tiny(
        "bart",
        "BartForConditionalGeneration",
        SEQ2SEQ,
        inputs=tokens(99, 10, 2),
        names=("input_ids", "decoder_input_ids"),
    ),
    tiny(
        "marian",
        "MarianMTModel",
        {**SEQ2SEQ, "pad_token_id": 0, "decoder_start_token_id": 0},
        config="MarianConfig",
        inputs=tokens(99, 10, 2),
        names=("input_ids", "decoder_input_ids"),
    ),
    tiny(
        "pegasus",
        "PegasusForConditionalGeneration",
        SEQ2SEQ,
        inputs=tokens(99, 10, 2),
        names=("input_ids", "decoder_input_ids"),
    ),
    tiny(
        "m2m100",
        "M2M100ForConditionalGeneration",
        SEQ2SEQ,
        inputs=tokens(99, 10, 2),
        names=("input_ids", "decoder_input_ids"),
    ),
    tiny(
        "whisper",
        "WhisperForConditionalGeneration",
        {
            **SEQ2SEQ,
            "num_mel_bins": 20,
            "max_source_positions": 20,
            "max_target_positions": 20,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "decoder_start_token_id": 1,
        },
        inputs=together(images(20, 40), tokens(99, 6)),
        names=("input_features", "decoder_input_ids"),
    ),
]
