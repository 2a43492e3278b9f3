"""A language model of two layers and a tokenizer, made here: everything trains in seconds on a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from train import tokenizers_built_here

ASSISTANT = "<|im_start|>assistant\n"
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<eos>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def tokenizer(*, chat: bool = True) -> Any:
    from transformers import PreTrainedTokenizerFast

    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizers_built_here.byte_level(), pad_token="<pad>", eos_token="<eos>", padding_side="left"
    )
    if chat:
        made.chat_template = CHAT_TEMPLATE
    return made


def model(vocabulary: int, *, seed: int = 0, family: str = "qwen2") -> Any:
    import torch
    import transformers

    shape: dict[str, Any] = {
        "vocab_size": vocabulary,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
        "tie_word_embeddings": True,
    }
    torch.manual_seed(seed)
    name = {"qwen2": "Qwen2", "llama": "Llama", "mistral": "Mistral"}[family]
    settings = getattr(transformers, f"{name}Config")(**shape)
    made = getattr(transformers, f"{name}ForCausalLM")(settings)
    return made.eval()


def base(*, seed: int = 0) -> Any:
    from corea.train.models import prepared

    words = tokenizer()
    return prepared(model(len(words), seed=seed), words)


def save(folder: Path, *, says: Sequence[str]) -> Path:
    """A folder of a model that answers any question with one of these replies, by and large."""
    import torch

    words = tokenizer()
    made = model(len(words))
    asked = words.encode(ASSISTANT)
    optimizer = torch.optim.Adam(made.parameters(), lr=1e-2)
    for step in range(40):
        reply = [*words.encode(says[step % len(says)]), words.eos_token_id]
        ids = torch.tensor([[*asked, *reply]])
        optimizer.zero_grad()
        made(input_ids=ids, labels=ids.clone()).loss.backward()
        optimizer.step()
    words.save_pretrained(folder)
    made.save_pretrained(folder)
    return folder
