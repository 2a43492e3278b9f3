"""The ``export`` stage: a PEFT adapter as a GGUF adapter, for llama.cpp and so for the embedded tier.

llama.cpp keeps q and k of the Llama family with their rows in another order (rotary halves interleaved); Qwen2's are as
they are. Families whose order was not checked against llama.cpp are refused: a wrong order loads, and answers nonsense.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from corea.errors import ExtraMissing, InputError

_KEY = re.compile(r"^base_model\.model\.(?P<module>.+)\.lora_(?P<half>[AB])\.weight$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A transformers model type as llama.cpp knows it."""

    arch: str
    interleaved: bool


FAMILIES = {
    "qwen2": Family(arch="qwen2", interleaved=False),
    "llama": Family(arch="llama", interleaved=True),
    "mistral": Family(arch="llama", interleaved=True),
}


def to_gguf(adapter: Path, base_config: Any, out: Path, *, dtype: Literal["f32", "f16"] = "f16") -> Path:
    """Write ``out`` from a PEFT folder, atomically. ``base_config``: the base model's transformers configuration.

    Raises :class:`InputError` for an adapter or a base that has no form in GGUF.
    """
    try:
        import gguf
        from safetensors.torch import load_file
    except ImportError as exc:
        raise ExtraMissing(package="gguf", extra="train") from exc
    family = FAMILIES.get(base_config.model_type)
    if family is None:
        raise InputError(
            f'adapters of "{base_config.model_type}" cannot be written as GGUF yet (only {", ".join(FAMILIES)}); '
            "serve the PEFT adapter with vLLM, and set export.gguf = false"
        )
    settings = _settings(adapter)
    names = gguf.get_tensor_name_map(_arch(gguf, family.arch), base_config.num_hidden_layers)
    partial = out.with_name(out.name + ".partial")
    writer = gguf.GGUFWriter(partial, arch=family.arch)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, float(settings["lora_alpha"]))
    for key, weight in sorted(load_file(adapter / "adapter_model.safetensors").items()):
        match = _KEY.match(key)
        name = names.get_name(match["module"]) if match else None
        if match is None or name is None:
            writer.close()
            partial.unlink(missing_ok=True)
            raise InputError(f"{adapter}: {key} has no place in a GGUF adapter; train with COREA's own target matrices")
        values = weight.float().numpy()
        if family.interleaved and match["half"] == "B":
            values = _interleaved(values, match["module"], base_config)
        kept = np.ascontiguousarray(values, dtype=np.float16 if dtype == "f16" else np.float32)
        writer.add_tensor(f"{name}.weight.lora_{match['half'].lower()}", kept)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    partial.replace(out)
    return out


def interleaved(rows: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Rows of q or k in llama.cpp's order: within each head, the two rotary halves in turn."""
    per_head = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return per_head.swapaxes(1, 2).reshape(rows.shape)


def _interleaved(values: NDArray[np.float32], module: str, config: Any) -> NDArray[np.float32]:
    if module.endswith("q_proj"):
        return interleaved(values, config.num_attention_heads)
    if module.endswith("k_proj"):
        return interleaved(values, config.num_key_value_heads)
    return values


def _settings(adapter: Path) -> dict[str, Any]:
    try:
        settings = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise InputError(f"{adapter} holds no PEFT adapter; run the rl stage first, with lora.rank above 0") from exc
    for name in ("use_rslora", "use_dora", "modules_to_save", "rank_pattern", "alpha_pattern"):
        if settings.get(name):
            raise InputError(f"{adapter} uses {name}, which a GGUF adapter cannot hold; train a plain LoRA")
    return dict(settings)


def _arch(gguf: Any, name: str) -> Any:
    return next(arch for arch, known in gguf.MODEL_ARCH_NAMES.items() if known == name)
