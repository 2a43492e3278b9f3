"""A map that is fitted here is accepted by the cascade that serves the adapter; and torch is asked like any tier."""
# ruff: noqa: E402 - the guard comes first, or importing torch would fail where it is to be skipped

from __future__ import annotations

import asyncio
import json
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="the train extra is not installed: see docs/training.md")
for package in ("peft", "gguf", "xllamacpp"):
    pytest.importorskip(package, reason="the train extra is not installed: see docs/training.md")

from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from corea.batch.rows import Question
from corea.build import tiers_of
from corea.config import Config, parse
from corea.errors import ContextOverflow, InputError
from corea.evaluate.outcomes import Outcomes
from corea.evaluate.outcomes import read as read_outcomes
from corea.evaluate.outcomes import write as write_outcomes
from corea.identity import shapes_of
from corea.train import calibrate, report, served
from corea.train.asking import TorchModel
from corea.train.config import TrainConfig
from corea.train.config import parse as parse_train
from corea.train.export import to_gguf
from corea.train.models import prepared
from corea.train.replies import protocol_form
from corea.train.rl import LORA_TARGETS
from corea.types import Message, Prompt, Reply
from train import gguf_base, tiny

pytestmark = pytest.mark.filterwarnings("default")

NOW = datetime(2026, 1, 1, tzinfo=UTC)
QUESTIONS = [Question(id=f"q{i}", question=f"{i} - {i} + {i % 2}?", gold=str(i % 2), kind="number") for i in range(60)]


@pytest.fixture(scope="module")
def talker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that answers by the letter of the protocol, by and large."""
    folder = tmp_path_factory.mktemp("talker")
    return tiny.save(folder, says=[protocol_form("so", "1", 9), protocol_form("so", "0", 2)])


def settings(folder: Path, base: Path, *, more: str = "") -> TrainConfig:
    return parse_train(
        f'base = "{base}"\noutput = "{folder}"\n[data]\nquestions = ["none"]\n[lora]\nrank = 4\n'
        f"[calibrate]\ntemperature = 1\nmax_tokens = 32\nbatch = 2\n{more}",
        source="t",
    )


def adapter_of(base: Path, folder: Path) -> Any:
    """An adapter that says little else than the base does: what it says is of no importance here."""
    made = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base),
        LoraConfig(r=4, lora_alpha=4, target_modules=LORA_TARGETS, task_type="CAUSAL_LM"),
    )
    with torch.no_grad():
        for name, weight in made.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 0.003)
    made.save_pretrained(folder)
    return made.eval()


def test_a_cascade_accepts_the_map_and_refuses_it_for_another_adapter(tmp_path: Path, talker: Path) -> None:
    model = adapter_of(talker, tmp_path / "peft")
    file = gguf_base.write(AutoModelForCausalLM.from_pretrained(talker), tiny.tokenizer(), tmp_path / "base.gguf")
    gguf = to_gguf(tmp_path / "peft", model.config, tmp_path / "adapter.gguf")
    config = settings(tmp_path / "out", file)
    both = served.embedded(config, gguf)

    async def ask() -> Outcomes:
        try:
            return await calibrate.measure(
                config, QUESTIONS[:3], both, fingerprint="f", on_start=lambda *_: None, on_row=lambda _: None
            )
        finally:
            await both.aclose()

    outcomes = asyncio.run(ask())
    assert outcomes.table["error"].null_count == len(outcomes.table) == 6
    # Whether the little thing writes a digit is luck: what the map is fitted on is made up, on the same two tiers.
    rows = [
        {"id": one.id, "tier": tier, "correct": float(i % 2), "finish_reason": "stop", "confidence.expected": i % 7 / 7}
        for i, one in enumerate(QUESTIONS)
        for tier in outcomes.tiers
    ]
    write_outcomes(tmp_path / "o.parquet", rows, metadata=outcomes.metadata, signals=["expected"])
    made = calibrate.concluded(config, read_outcomes(tmp_path / "o.parquet"), both, engine="embedded", now=NOW)
    assert made.fit is not None
    assert made.fit.n + made.fit.n_check == len(QUESTIONS)
    cascade = (tmp_path / "out" / "tier.toml").read_text(encoding="utf-8") + (
        f'[[tiers]]\nname = "large"\nkind = "embedded"\nmodel = "{file}"\n'
    )
    tiers = tiers_of(parse(cascade, source="t"))
    assert tiers[0].estimator is not None
    assert tiers[0].estimator.ask == "inline"
    model.load_state_dict({name: weight * 2 for name, weight in model.state_dict().items() if "lora_B" in name}, False)
    model.save_pretrained(tmp_path / "peft")
    to_gguf(tmp_path / "peft", model.config, gguf)
    with pytest.raises(InputError, match="was fitted for another model"):
        tiers_of(parse(cascade, source="t"))


def test_the_tier_that_is_handed_out_is_the_one_that_was_measured(tmp_path: Path, talker: Path) -> None:
    gguf = tmp_path / "adapter.gguf"
    gguf.write_bytes(b"GGUF")
    file = gguf_base.write(tiny.model(len(tiny.tokenizer())), tiny.tokenizer(), tmp_path / "base.gguf")
    both = served.embedded(settings(tmp_path, file), gguf)
    assert both.tier is not None
    told = tomllib.loads(served.tier_toml(both.tier, map=None))["tiers"][0]
    last = {"name": "large", "kind": "embedded", "model": str(file)}
    assert shapes_of(Config.model_validate({"tiers": [told, last]}))["small"] == both.shapes[1]
    assert both.shapes[0] != both.shapes[1]


def test_figures_of_both_sides_are_of_the_same_questions_and_unknown_is_not_counted_in(tmp_path: Path) -> None:
    rows = []
    for i in range(40):
        row = {"id": f"q{i}", "correct": float(i % 2), "finish_reason": "stop", "question": f"{i}?"}
        rows.append({**row, "tier": "base", "confidence.expected": 0.9 if i < 4 else None})
        rows.append({**row, "tier": "trained", "confidence.expected": 0.9 if i % 2 else 0.1})
    rows[-1]["error"] = "no reply"
    path = tmp_path / "o.parquet"
    write_outcomes(path, rows, metadata={"tiers": ["base", "trained"], "samples": 0}, signals=["expected"])
    config = settings(tmp_path, Path("tiny"))
    both = served.Served(tiers=(), shapes=())
    made = calibrate.concluded(config, read_outcomes(path), both, engine="transformers", now=NOW)
    assert (made.questions, made.left_out) == (39, 1)
    assert made.before.states.value == pytest.approx(4 / 39)
    assert made.before.signals["expected"].auroc.value == 0.5
    assert made.after.signals["expected"].auroc.value == 1.0
    assert made.after.signals["expected"].ece_equal_mass.value == pytest.approx(0.1)
    assert made.fit is None
    kept = report.read(tmp_path)
    assert kept is not None
    told = {what: (before, after) for what, before, after in report.rows(kept)}
    assert told["E[c]: AUROC"] == ("0.500 (0.500 to 0.500)", "1.000 (1.000 to 1.000)")
    assert told["E[c]: distinct values"] == ("1", "2")
    assert told["stated digit: ECE"] == ("–", "–")
    assert "corea eval fit" in (tmp_path / "report.md").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8")) == kept


def test_too_few_questions_make_no_map_and_the_report_says_why(tmp_path: Path, talker: Path) -> None:
    rows = [
        {"id": f"q{i}", "tier": tier, "correct": 1.0, "finish_reason": "stop", "confidence.expected": 0.5}
        for i in range(9)
        for tier in ("base", "trained")
    ]
    path = tmp_path / "o.parquet"
    write_outcomes(path, rows, metadata={"tiers": ["base", "trained"], "samples": 0}, signals=["expected"])
    gguf = tmp_path / "adapter.gguf"
    gguf.write_bytes(b"GGUF")
    file = gguf_base.write(tiny.model(len(tiny.tokenizer())), tiny.tokenizer(), tmp_path / "base.gguf")
    config = settings(tmp_path, file)
    (tmp_path / "map.json").write_text("of an earlier run")
    made = calibrate.concluded(config, read_outcomes(path), served.embedded(config, gguf), engine="embedded", now=NOW)
    assert made.no_fit is not None
    assert "20 are needed" in made.no_fit
    assert not (tmp_path / "map.json").exists()
    assert 'estimator = "expected"' in (tmp_path / "tier.toml").read_text(encoding="utf-8")


def test_a_limit_takes_of_all_sources_and_the_same_ones_each_time() -> None:
    chosen = calibrate.chosen(QUESTIONS, 20, seed=3)
    assert chosen == calibrate.chosen(QUESTIONS, 20, seed=3)
    assert len(chosen) == 20
    assert {int(one.id[1:]) // 30 for one in chosen} == {0, 1}


def prompt(text: str, **given: Any) -> Prompt:
    return Prompt(messages=(Message(role="user", content=text),), **{"max_tokens": 24, **given})


def together(model: TorchModel, prompts: list[Prompt]) -> list[Reply]:
    async def ask() -> list[Reply]:
        try:
            return list(await asyncio.gather(*(model.complete(one) for one in prompts)))
        finally:
            await model.aclose()

    return asyncio.run(ask())


def test_replies_in_a_batch_are_those_each_alone_would_have_had(talker: Path) -> None:
    base = prepared(AutoModelForCausalLM.from_pretrained(talker), tiny.tokenizer())
    asked = [prompt("1?", top_logprobs=5), prompt("a longer question, 1 + 2?", top_logprobs=5), prompt("2?")]
    found = together(TorchModel("t", lambda: base, batch=8), asked)
    alone = [together(TorchModel("t", lambda: base, batch=1), [one])[0] for one in asked]
    assert [one.text for one in found] == [one.text for one in alone]
    assert found[2].tokens is None
    for one, other in zip(found[:2], alone[:2], strict=True):
        assert one.tokens is not None
        assert other.tokens is not None
        assert "".join(token.text for token in one.tokens) == one.text
        assert [token.logprob for token in one.tokens] == pytest.approx(
            [token.logprob for token in other.tokens], abs=1e-4
        )
        # Greedy: the likeliest is what was taken.
        assert all(token.top[0] == (token.text, token.logprob) for token in one.tokens)
        assert all(len(token.top) == 5 for token in one.tokens)
    assert together(TorchModel("t", lambda: base, batch=1), [prompt("1?", max_tokens=2)])[0].finish_reason == "length"


def test_plain_is_without_the_adapter(talker: Path, tmp_path: Path) -> None:
    model = adapter_of(talker, tmp_path)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 1)
    both = prepared(model, tiny.tokenizer())
    base = prepared(AutoModelForCausalLM.from_pretrained(talker), tiny.tokenizer())
    asked = [prompt("1?")]
    plain = together(TorchModel("t", lambda: both, batch=1, plain=True), asked)[0].text
    assert plain == together(TorchModel("t", lambda: base, batch=1), asked)[0].text
    assert plain != together(TorchModel("t", lambda: both, batch=1), asked)[0].text


def test_a_prompt_that_leaves_no_room_fails_alone_and_the_others_are_answered(talker: Path) -> None:
    base = prepared(AutoModelForCausalLM.from_pretrained(talker), tiny.tokenizer())

    async def ask() -> list[Any]:
        model = TorchModel("t", lambda: base, batch=1)
        asked = (model.complete(prompt(text)) for text in ("1?", "x" * 4000, "2?"))
        return list(await asyncio.gather(*asked, return_exceptions=True))

    first, second, third = asyncio.run(ask())
    assert isinstance(second, ContextOverflow)
    assert first.text
    assert third.text
