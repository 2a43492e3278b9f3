"""Small tokenizers of the families in use, trained in a moment; real ones take half a minute to load from GGUF."""

from __future__ import annotations

from typing import Any

CORPUS = [
    "Please reason step by step. 3 + 4 = 7, so the answer is 7.",
    "Answer: 42\nConfidence: 7",
    "Answer: 9\nConfidence: 0\nAnswer: 1\nConfidence: 9",
    "I am sure, Confidence is high. Sí, naïve café: 20 € — 東京 🙂",
]


def byte_level(*, merges: int = 120, spaced: bool = True) -> Any:
    """As GPT-2, Qwen and SmolLM2. ``spaced=False`` merges over words and lines, so that tokens straddle everything."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=spaced)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=259 + merges,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<pad>", "<eos>", "<|im_start|>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS * 4, trainer)
    return tokenizer


def byte_fallback() -> Any:
    """As Llama and Gemma: pieces over ▁, and a token for each byte that no piece covers."""
    from tokenizers import Tokenizer, decoders, models, normalizers

    specials = ["<pad>", "<eos>", "<unk>"]
    raw = [f"<0x{byte:02X}>" for byte in range(256)]
    letters = sorted({char for line in CORPUS[:3] for char in line.replace(" ", "▁") if char != "\n"})
    merges = [("C", "o"), ("n", "f"), ("Co", "nf"), ("▁", "7"), (":", "▁"), ("i", "d"), ("A", "n"), ("s", "w")]
    vocab = {piece: index for index, piece in enumerate([*specials, *raw, *letters, *("".join(two) for two in merges)])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens(specials)
    return tokenizer


ALL = {"words": byte_level, "straddling": lambda: byte_level(merges=300, spaced=False), "bytes": byte_fallback}
