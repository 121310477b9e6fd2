"""transformers' text encoders."""

from __future__ import annotations

from .case import Case, tokens
from .tiny import HIDDEN, tiny

CASES: list[Case] = [
    tiny("bert", "BertForSequenceClassification", num_labels=5),
    tiny(
        "bert-sdpa", "BertModel", outputs=("last_hidden_state", "pooler_output"), attention="sdpa", most=0.65
    ),
    tiny("roberta", "RobertaForMaskedLM", pad_token_id=1),
    tiny(
        "distilbert",
        "DistilBertForMaskedLM",
        {
            "vocab_size": 99,
            "dim": 64,
            "n_layers": 2,
            "n_heads": 4,
            "hidden_dim": 128,
            "max_position_embeddings": 64,
        },
    ),
    tiny("albert", "AlbertForMaskedLM", embedding_size=32),
    tiny("electra", "ElectraForPreTraining", embedding_size=32),
    tiny(
        "deberta",
        "DebertaForMaskedLM",
        relative_attention=True,
        pos_att_type=["c2p", "p2c"],
        max_relative_positions=16,
    ),
    tiny(
        "deberta-v2",
        "DebertaV2ForSequenceClassification",
        relative_attention=True,
        pos_att_type=["c2p", "p2c"],
        position_buckets=8,
        share_att_key=True,
    ),
    tiny("mpnet", "MPNetForMaskedLM", pad_token_id=1),
    tiny(
        "mobilebert",
        "MobileBertForMaskedLM",
        embedding_size=32,
        intra_bottleneck_size=32,
        true_hidden_size=32,
        use_bottleneck=True,
    ),
    tiny("squeezebert", "SqueezeBertForMaskedLM", embedding_size=64),
    tiny("convbert", "ConvBertForMaskedLM", embedding_size=32, head_ratio=2, conv_kernel_size=3),
    tiny(
        "modernbert",
        "ModernBertForMaskedLM",
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        cls_token_id=1,
        sep_token_id=2,
    ),
    tiny("esm", "EsmForMaskedLM", pad_token_id=1, mask_token_id=2, position_embedding_type="rotary"),
    tiny(
        "funnel",
        "FunnelModel",
        {
            "vocab_size": 99,
            "block_sizes": [1, 1],
            "d_model": 64,
            "n_head": 4,
            "d_head": 16,
            "d_inner": 128,
            "num_decoder_layers": 1,
        },
        outputs=HIDDEN,
        most=0.6,
    ),
    tiny("fnet", "FNetForMaskedLM", inputs=tokens(99, 16), most=0.55, tpu_short_seq_length=16),
    tiny(
        "xlnet",
        "XLNetLMHeadModel",
        {"vocab_size": 99, "d_model": 64, "n_layer": 2, "n_head": 4, "d_inner": 128, "use_mems_eval": False},
        config="XLNetConfig",
    ),
    tiny(
        "canine",
        "CanineModel",
        inputs=tokens(99, 16),
        outputs=HIDDEN,
        downsampling_rate=4,
        num_hash_buckets=64,
        local_transformer_stride=8,
    ),
    tiny("roformer", "RoFormerForMaskedLM", config="RoFormerConfig", embedding_size=64),
]
