"""What llama.cpp makes of an exported adapter is what torch makes of the trained one."""
# ruff: noqa: E402 - the guard comes first, or importing torch would fail where it is to be skipped

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="the train extra is not installed: see docs/training.md")
for package in ("peft", "gguf"):
    pytest.importorskip(package, reason="the train extra is not installed: see docs/training.md")
xllamacpp = pytest.importorskip("xllamacpp")

from peft import LoraConfig, get_peft_model

from corea.errors import InputError
from corea.models.embedded import EmbeddedModel, EngineSettings
from corea.train.export import FAMILIES, to_gguf
from corea.train.models import load_base
from corea.train.rl import LORA_TARGETS
from corea.types import Message, Prompt, Reply
from train import gguf_base, tiny

pytestmark = pytest.mark.filterwarnings("default")


def adapted(folder: Path, family: str) -> Any:
    """A base whose words are not all alike, with an adapter that moves them a lot: saved as PEFT, the base as GGUF."""
    words = tiny.tokenizer()
    base = tiny.model(len(words), family=family)
    with torch.no_grad():
        for weight in base.parameters():
            weight.mul_(4 if weight.dim() == 2 else 1)
    gguf_base.write(base, words, folder / "base.gguf")
    made = get_peft_model(
        base, LoraConfig(r=4, lora_alpha=8, target_modules=LORA_TARGETS, task_type="CAUSAL_LM")
    ).eval()
    torch.manual_seed(1)
    with torch.no_grad():
        for name, weight in made.named_parameters():
            if "lora_" in name:
                weight.normal_(0, 0.3)
    made.save_pretrained(folder / "peft")
    return made


def likeliest(folder: Path, ids: list[int], always: int) -> dict[int, float]:
    """The next token's likeliest 20 by llama.cpp, with the adapter. ``always`` is sampled, whatever they are."""
    params = xllamacpp.CommonParams()
    params.model.path = str(folder / "base.gguf")
    params.n_ctx, params.n_parallel, params.fit_params, params.verbosity, params.ui = 256, 1, False, 0, False
    params.cpuparams.n_threads = 1
    lora = xllamacpp.CommonAdapterLoraInfo()
    lora.path, lora.scale = str(folder / "adapter.gguf"), 1.0
    params.lora_adapters = [lora]
    asked = {"prompt": ids, "n_predict": 1, "logprobs": 20, "temperature": 0, "logit_bias": [[always, 100.0]]}
    told = xllamacpp.Server(params).handle_completions(asked)
    row = (json.loads(told) if isinstance(told, str) else told)["choices"][0]["logprobs"]["content"][0]
    return {one["id"]: one["logprob"] for one in row["top_logprobs"]}


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_llama_cpp_with_the_exported_adapter_agrees_with_torch(tmp_path: Path, family: str) -> None:
    model, words = adapted(tmp_path, family), tiny.tokenizer()
    to_gguf(tmp_path / "peft", model.config, tmp_path / "adapter.gguf", dtype="f32")
    ids = words.encode("Answer: 42\nConfidence: 7 and more words")
    with torch.no_grad():
        ours = torch.log_softmax(model(torch.tensor([ids])).logits[0, -1], dim=-1)
        with model.disable_adapter():
            plain = torch.log_softmax(model(torch.tensor([ids])).logits[0, -1], dim=-1)
    theirs = likeliest(tmp_path, ids, words.convert_tokens_to_ids("s"))
    assert len(theirs) == 20
    assert max(abs(float(ours[id]) - value) for id, value in theirs.items()) < 0.01
    # It would not agree without the adapter.
    assert max(abs(float(plain[id]) - value) for id, value in theirs.items()) > 0.5


def test_the_embedded_tier_loads_it(tmp_path: Path) -> None:
    model = adapted(tmp_path, "qwen2")
    path = to_gguf(tmp_path / "peft", model.config, tmp_path / "adapter.gguf")
    assert not list(tmp_path.glob("*.partial"))

    async def ask() -> Reply:
        served = EmbeddedModel("tiny", EngineSettings(path=tmp_path / "base.gguf", adapters=((path, 1.0),), threads=1))
        asked = Prompt(messages=(Message(role="user", content="1 + 1?"),), max_tokens=2)
        try:
            return await served.complete(asked, timeout_s=60)
        finally:
            await served.aclose()

    reply = asyncio.run(ask())
    assert reply.usage is not None
    assert reply.usage.completion_tokens > 0


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_a_gguf_base_is_trained_as_the_model_it_was_and_is_turned_into_a_folder_once(
    tmp_path: Path, family: str
) -> None:
    words = tiny.tokenizer()
    original = tiny.model(len(words), family=family)
    file = gguf_base.write(original, words, tmp_path / "base.gguf")
    base = load_base(str(file), cache=tmp_path / "cache")
    ids = words.encode("Answer: 42\nConfidence: 7")
    assert base.tokenizer.decode(ids) == "Answer: 42\nConfidence: 7"
    with torch.no_grad():
        difference = base.model(torch.tensor([ids])).logits - original(torch.tensor([ids])).logits
    assert difference.abs().max() < 1e-4
    file.write_bytes(file.read_bytes()[:64])
    assert load_base(str(file), cache=tmp_path / "cache").digit_ids == base.digit_ids


def test_what_has_no_form_in_gguf_is_refused(tmp_path: Path) -> None:
    model = adapted(tmp_path, "qwen2")
    out = tmp_path / "adapter.gguf"
    with pytest.raises(InputError, match="holds no PEFT adapter"):
        to_gguf(tmp_path / "none", model.config, out)
    settings = tmp_path / "peft" / "adapter_config.json"
    written = json.loads(settings.read_text(encoding="utf-8"))
    settings.write_text(json.dumps({**written, "use_dora": True}), encoding="utf-8")
    with pytest.raises(InputError, match="uses use_dora, which a GGUF adapter cannot hold"):
        to_gguf(tmp_path / "peft", model.config, out)
    model.config.model_type = "gpt2"
    with pytest.raises(InputError, match=r'"gpt2" cannot be written as GGUF yet \(only qwen2, llama, mistral\)'):
        to_gguf(tmp_path / "peft", model.config, out)
    assert not out.exists()
