"""transformers' language models."""

from __future__ import annotations

from dataclasses import replace

from .case import Case
from .tiny import tiny

CASES: list[Case] = [
    tiny(
        "gpt2",
        "GPT2LMHeadModel",
        {"vocab_size": 99, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64, "use_cache": False},
        config="GPT2Config",
    ),
    tiny(
        "gpt2-sdpa",
        "GPT2LMHeadModel",
        {"vocab_size": 99, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64, "use_cache": False},
        config="GPT2Config",
        attention="sdpa",
    ),
    tiny(
        "gpt-neo",
        "GPTNeoForCausalLM",
        {
            "vocab_size": 99,
            "hidden_size": 64,
            "num_layers": 2,
            "attention_types": [[["global", "local"], 1]],
            "num_heads": 4,
            "window_size": 4,
            "max_position_embeddings": 64,
            "use_cache": False,
        },
    ),
    tiny("gpt-neox", "GPTNeoXForCausalLM"),
    tiny(
        "gptj",
        "GPTJForCausalLM",
        {
            "vocab_size": 99,
            "n_embd": 64,
            "n_layer": 2,
            "n_head": 4,
            "n_positions": 64,
            "rotary_dim": 8,
            "use_cache": False,
        },
    ),
    tiny(
        "gpt-bigcode",
        "GPTBigCodeForCausalLM",
        {
            "vocab_size": 99,
            "n_embd": 64,
            "n_layer": 2,
            "n_head": 4,
            "n_positions": 64,
            "multi_query": True,
            "use_cache": False,
        },
    ),
    tiny(
        "codegen",
        "CodeGenForCausalLM",
        {
            "vocab_size": 99,
            "n_embd": 64,
            "n_layer": 2,
            "n_head": 4,
            "n_positions": 64,
            "rotary_dim": 8,
            "use_cache": False,
        },
    ),
    tiny(
        "opt",
        "OPTForCausalLM",
        {
            "vocab_size": 99,
            "hidden_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "ffn_dim": 128,
            "word_embed_proj_dim": 32,
            "max_position_embeddings": 64,
            "use_cache": False,
        },
    ),
    tiny(
        "bloom",
        "BloomForCausalLM",
        {"vocab_size": 99, "hidden_size": 64, "n_layer": 2, "n_head": 4, "use_cache": False},
    ),
    tiny("falcon", "FalconForCausalLM", num_kv_heads=2, new_decoder_architecture=True),
    replace(
        tiny(
            "falcon-alibi", "FalconForCausalLM", alibi=True, multi_query=True, new_decoder_architecture=False
        ),
        onnx=False,  # its biases are bfloat16, which ONNX Runtime multiplies on no CPU
    ),
    tiny(
        "mpt",
        "MptForCausalLM",
        {
            "vocab_size": 99,
            "d_model": 64,
            "n_layers": 2,
            "n_heads": 4,
            "max_seq_len": 64,
            "expansion_ratio": 2,
            "use_cache": False,
        },
    ),
    tiny("llama", "LlamaForCausalLM", num_key_value_heads=2),
    tiny("llama-sdpa", "LlamaForCausalLM", attention="sdpa", num_key_value_heads=2),
    tiny("mistral", "MistralForCausalLM", num_key_value_heads=2, sliding_window=8),
    tiny("qwen2", "Qwen2ForCausalLM", num_key_value_heads=2),
    tiny("qwen3", "Qwen3ForCausalLM", num_key_value_heads=2, head_dim=16),
    tiny("gemma", "GemmaForCausalLM", num_key_value_heads=1, head_dim=16),
    tiny("gemma2", "Gemma2ForCausalLM", num_key_value_heads=2, head_dim=16, sliding_window=8),
    tiny("phi", "PhiForCausalLM"),
    tiny("phi3", "Phi3ForCausalLM", num_key_value_heads=2, pad_token_id=0),
    tiny("stablelm", "StableLmForCausalLM", num_key_value_heads=2, use_qkv_bias=True),
    tiny("starcoder2", "Starcoder2ForCausalLM", num_key_value_heads=2),
    tiny("olmo2", "Olmo2ForCausalLM", num_key_value_heads=2),
    tiny("cohere", "CohereForCausalLM", num_key_value_heads=2),
    tiny("persimmon", "PersimmonForCausalLM"),
    tiny("mixtral", "MixtralForCausalLM", num_key_value_heads=2, num_local_experts=4, num_experts_per_tok=2),
    tiny(
        "mamba",
        "MambaForCausalLM",
        {
            "vocab_size": 99,
            "hidden_size": 32,
            "state_size": 8,
            "num_hidden_layers": 2,
            "use_cache": False,
            "use_mambapy": False,
        },
    ),
    tiny(
        "mamba2",
        "Mamba2ForCausalLM",
        {
            "vocab_size": 99,
            "hidden_size": 32,
            "state_size": 8,
            "num_hidden_layers": 2,
            "num_heads": 8,
            "head_dim": 8,
            "n_groups": 2,
            "chunk_size": 4,
            "use_cache": False,
        },
        most=0.6,
    ),
    tiny(
        "rwkv",
        "RwkvForCausalLM",
        {
            "vocab_size": 99,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "attention_hidden_size": 32,
            "intermediate_size": 64,
            "use_cache": False,
        },
    ),
    tiny(
        "xglm",
        "XGLMForCausalLM",
        {
            "vocab_size": 99,
            "d_model": 64,
            "num_layers": 2,
            "attention_heads": 4,
            "ffn_dim": 128,
            "max_position_embeddings": 64,
            "use_cache": False,
        },
    ),
]
