"""At the place of the digit, llama.cpp with the exported adapter on a quantised base says what torch says."""
# ruff: noqa: E402 - the guard comes first, or importing torch would fail where it is to be skipped

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the train extra is not installed: see docs/training.md")
for package in ("peft", "gguf", "transformers"):
    pytest.importorskip(package, reason="the train extra is not installed: see docs/training.md")
pytest.importorskip("xllamacpp")

from peft import get_peft_model

from bench.export_parity import AGREE, MOST, Parity, by_llama, by_torch, requantised
from corea.batch.rows import Question
from corea.train.config import parse
from corea.train.export import to_gguf
from corea.train.models import Base, load_base
from corea.train.rl import lora_config
from corea.train.rollouts import Rollout
from corea.train.warmup import encoded, loss_of, rewritten
from train import gguf_base, tiny

pytestmark = pytest.mark.filterwarnings("default")

PROMPTS = 50
QUESTIONS = [
    Question(id=f"q{i}", question=f"{i} + {i % 7}?", gold=str(i + i % 7), kind="number") for i in range(PROMPTS)
]
CONFIG = parse('base = "t"\noutput = "t"\n[data]\nquestions = ["t"]\n[lora]\nrank = 8\n', source="t")


#: How a reply begins, and the digit that is to follow it.
MANNERS = (("I am sure. It is", 9), ("Maybe it is", 5), ("No idea, say", 0))


def rows_of(base: Base) -> list[dict[str, Any]]:
    made = []
    for at, one in enumerate(QUESTIONS):
        manner, digit = MANNERS[at % len(MANNERS)]
        told = Rollout(id=one.id, sample=0, text=f"{manner} {one.gold}", correct=1.0, finished=True)
        lesson = rewritten(one, told, digit)
        assert lesson is not None
        made.append(encoded(lesson, base))
    return made


def warmed_up(base: Base, rows: list[dict[str, Any]], folder: Path) -> Any:
    """A LoRA that has learned to say the digits, by the warm-up's own loss."""
    torch.manual_seed(0)
    model = get_peft_model(base.model, lora_config(CONFIG))
    learner = torch.optim.Adam([weight for weight in model.parameters() if weight.requires_grad], lr=5e-3)
    for step in range(60):
        row = rows[step % len(rows)]
        batch = {name: torch.tensor([row[name]]) for name in ("input_ids", "learned", "digit_back", "correct")}
        learner.zero_grad()
        logits = model(batch["input_ids"], logits_to_keep=row["learned"] + 1).logits
        loss_of(logits, batch, digit_ids=base.digit_ids, conftuner=0.0).backward()
        learner.step()
    model.eval().save_pretrained(folder)
    return model


def untrained(family: str, words: Any) -> Any:
    """A model whose words are not all alike, as a trained one's are not."""
    made = tiny.model(len(words), family=family)
    with torch.no_grad():
        for weight in made.parameters():
            weight.mul_(4 if weight.dim() > 1 else 1)
    return made


@pytest.mark.parametrize("family, kept", [("llama", "Q4_1"), ("qwen2", "Q8_0")])
def test_the_digit_is_told_alike_on_a_quantised_base(tmp_path: Path, family: str, kept: str) -> None:
    words = tiny.tokenizer()
    whole = gguf_base.write(untrained(family, words), words, tmp_path / "whole.gguf")
    file = requantised(whole, tmp_path / "base.gguf", kept)
    base = load_base(str(file), cache=tmp_path / "base")
    rows = rows_of(base)
    model = warmed_up(base, rows, tmp_path / "adapter")
    adapter = to_gguf(tmp_path / "adapter", model.config, tmp_path / "adapter.gguf")
    prompts = [row["input_ids"][: -row["digit_back"]] for row in rows]
    assert all(words.decode(ids).rstrip().endswith("Confidence:") for ids in prompts)

    ours = by_torch(base, prompts)
    theirs = by_llama(base, file, adapter, prompts)
    made = Parity(ours=ours, theirs=theirs)
    assert made.apart <= MOST
    assert made.same_top >= AGREE
    # That is no wonder of distributions that are all one, nor of an adapter that does nothing.
    varied = float(np.abs(ours - ours.mean(axis=0)).mean())
    with model.disable_adapter():
        moved = Parity(ours=by_torch(base, prompts), theirs=theirs).apart
    assert varied > 5 * made.apart
    assert moved > 0.5
