"""A base model for training: from a folder, a GGUF file or the catalogue, with what its tokenizer lacks made up for.

torch and transformers are imported here. Downloads nothing: the catalogue's files must be on disk already.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from corea.errors import InputError, ModelFileError
from corea.models.verified import path_of

#: For a base model that was never taught to chat: plain headings, as its pre-training text has them.
PLAIN_TEMPLATE = (
    "{% for message in messages %}"
    "{{ message['role'].capitalize() + ':\\n' + message['content'].strip() + '\\n\\n' }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:\\n' }}{% endif %}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """A model and its tokenizer. ``digit_ids``: the ten digits' tokens after the label, None if they are not one each.

    ``notes`` say what was lacking and what is done instead.
    """

    model: Any
    tokenizer: Any
    digit_ids: tuple[int, ...] | None
    notes: tuple[str, ...] = ()


def load_base(base: str, *, cache: Path, bf16: bool = False) -> Base:
    """Load, whatever the form. A GGUF file is turned into a folder at ``cache`` once: that takes a minute.

    Raises :class:`InputError` for what transformers cannot load.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = folder_of(base, cache)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16 if bf16 else torch.float32)
    except (OSError, ValueError, KeyError) as exc:
        why = " ".join(str(exc).split())[:200]
        raise InputError(
            f"transformers cannot load {base} ({why}); give a folder with config.json and weights"
        ) from exc
    return prepared(model, tokenizer)


def prepared(model: Any, tokenizer: Any) -> Base:
    """The pair with a chat template and a padding token, and told what else it lacks."""
    notes = []
    if not tokenizer.chat_template:
        tokenizer.chat_template = PLAIN_TEMPLATE
        notes.append("the base model has no chat template: it is asked under plain headings (System, User, Assistant)")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "left"
    digits = digit_ids(tokenizer)
    if digits is None:
        notes.append(
            "its digits are not one token each: confidence is trained as it is sampled, but neither the ConfTuner loss "
            'nor the "expected" estimator can be used; serve it with the "verbalized" one'
        )
    return Base(model=model, tokenizer=tokenizer, digit_ids=digits, notes=tuple(notes))


def digit_ids(tokenizer: Any) -> tuple[int, ...] | None:
    """The token of each digit where it stands after ``Confidence:``; None unless each is one token of its own."""
    found = []
    for digit in "0123456789":
        ids = tokenizer.encode(f"Answer: 1\nConfidence: {digit}", add_special_tokens=False)
        if not ids or tokenizer.decode(ids[-1:]).strip() != digit:
            return None
        found.append(int(ids[-1]))
    return tuple(found) if len(set(found)) == len(found) else None


def with_adapter(base: Base, folder: Path) -> Base:
    """The base with an adapter of an earlier stage, to go on training it."""
    from peft import PeftModel

    return replace(base, model=PeftModel.from_pretrained(base.model, str(folder), is_trainable=True))


def decoder(tokenizer: Any) -> Callable[[Sequence[int]], str]:
    """How TRL decodes the text that rewards are given for: without special tokens."""
    return lambda ids: str(tokenizer.decode(list(ids), skip_special_tokens=True))


def ends_of(base: Base) -> set[int]:
    """The tokens that end a reply."""
    of = base.model.generation_config.eos_token_id
    return {base.tokenizer.eos_token_id, *(() if of is None else (of,) if isinstance(of, int) else of)}


def layers_of(base: Base) -> int:
    """How many layers the model has."""
    return int(base.model.config.num_hidden_layers)


def folder_of(base: str, cache: Path) -> Path:
    """The folder transformers loads: the one named, or the one at ``cache``, made of the GGUF file if need be."""
    named = Path(base).expanduser()
    if named.is_dir():
        return named
    file = gguf_file(base)
    return cache if (cache / "config.json").is_file() else _from_gguf(file, cache)


def config_of(folder: Path) -> Any:
    """The model's transformers configuration, without its weights."""
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(folder)


def hush() -> None:
    """No bars of transformers' own, and none of the warnings that our libraries give one another."""
    import warnings

    from transformers.utils import logging

    logging.disable_progress_bar()
    warnings.simplefilter("ignore", FutureWarning)
    warnings.simplefilter("ignore", UserWarning)


def gpu_has_bf16() -> bool:
    import torch

    return bool(torch.cuda.is_available() and torch.cuda.is_bf16_supported())


def in_bf16(precision: Literal["auto", "float32", "bfloat16"]) -> bool:
    """Whether products are computed in bfloat16, as ``TrainConfig.precision`` says."""
    return gpu_has_bf16() if precision == "auto" else precision == "bfloat16"


def gguf_file(base: str) -> Path:
    """The GGUF file of a catalogue name or path. Raises :class:`CatalogueError` for neither."""
    file = path_of(base)
    if file is None:
        raise ModelFileError(f"the model {base} is not on this disk; fetch it with: corea models pull {base}")
    return file


def _from_gguf(file: Path, cache: Path) -> Path:
    """Weights and tokenizer of a GGUF file as transformers keeps them. Quantised weights are dequantised."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    # Weights left in their blocks can be neither trained nor saved.
    dense = GgufConfig(dequantize=True)
    try:
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
        model = AutoModelForCausalLM.from_pretrained(
            file.parent, gguf_file=file.name, quantization_config=dense, dtype=torch.float32
        )
    except (OSError, ValueError, KeyError, NotImplementedError) as exc:
        why = " ".join(str(exc).split())[:200]
        raise ModelFileError(f"transformers cannot read {file} ({why}); give a folder of a transformers model") from exc
    partial = cache.with_name(cache.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    shutil.rmtree(cache, ignore_errors=True)
    partial.replace(cache)
    return cache
