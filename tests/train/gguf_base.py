"""A tiny transformers model as a whole GGUF file, so that llama.cpp can be asked what torch was asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from corea.train.export import FAMILIES, interleaved


def write(model: Any, tokenizer: Any, out: Path) -> Path:
    import gguf

    config, family = model.config, FAMILIES[model.config.model_type]
    arch = next(arch for arch, name in gguf.MODEL_ARCH_NAMES.items() if name == family.arch)
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    writer = gguf.GGUFWriter(out, arch=family.arch)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    written = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    vocabulary = sorted(written["vocab"], key=written["vocab"].__getitem__)
    special = set(tokenizer.all_special_tokens)
    kinds = [gguf.TokenType.CONTROL if token in special else gguf.TokenType.NORMAL for token in vocabulary]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(vocabulary)
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(pair) for pair in written["merges"]])
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    for key, weight in model.state_dict().items():
        if key == "lm_head.weight":  # tied
            continue
        name = names.get_name(key, try_suffixes=(".weight", ".bias"))
        values = weight.float().numpy()
        if family.interleaved and ".q_proj." in key:
            values = interleaved(values, config.num_attention_heads)
        if family.interleaved and ".k_proj." in key:
            values = interleaved(values, config.num_key_value_heads)
        writer.add_tensor(name, np.ascontiguousarray(values, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return out
