"""The model card says what was trained and on what, in the form that the Hub reads, and nothing of this machine."""
# ruff: noqa: E402 - the guard comes first, or importing torch would fail where it is to be skipped

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="the train extra is not installed: see docs/training.md")
yaml = pytest.importorskip("yaml")

from corea.batch.rows import Question
from corea.train import card, record
from corea.train.config import TrainConfig, parse
from corea.train.data import Source, TrainingData
from corea.train.decontaminate import decontaminate


def settings(base: str, more: str = "") -> TrainConfig:
    return parse(
        f'base = "{base}"\noutput = "/secret/out"\n[data]\nquestions = ["/secret/q.jsonl"]\n{more}', source="t"
    )


def facts(**given: Any) -> card.Facts:
    asked = [Question(id=f"q{i}", question=f"What is {i} and {i}?", gold="1", kind="number") for i in range(5)]
    data = TrainingData(
        train=tuple(asked[:4]),
        held_out=tuple(asked[4:]),
        decontaminated=decontaminate(asked, [], ngram=8),
        sources=(Source(name="q.jsonl", questions=5, sha256="ab" * 32),),
        repeated=2,
    )
    return card.Facts(data=data, **given)


def front_matter(text: str) -> dict[str, Any]:
    return dict(yaml.safe_load(text.split("---\n")[1]))


def test_the_card_of_a_catalogue_model_names_its_base_its_licence_and_its_data() -> None:
    stages = {"rl": {"wall_s": 61.4, "device": "1 × some GPU"}}
    text = card.text(settings("qwen2.5-coder-0.5b"), facts(stages=stages, versions={"trl": "1.16.0"}))
    told = front_matter(text)
    assert told["base_model"] == "Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF"
    assert (told["library_name"], told["license"], told["base_model_relation"]) == ("peft", "apache-2.0", "adapter")
    assert {"confidence", "lora"} <= set(told["tags"])
    for words in (
        f"q.jsonl: 5 questions, SHA-256 `{'ab' * 32}`",
        "4 questions were trained on, 1 were held out",
        "2 repeated questions were left out",
        "200 steps of GRPO with the reward `hybrid`, seed 0",
        "trl 1.16.0",
        "- rl: 61 s on 1 × some GPU",
        "Not measured",
        "(Apache-2.0), governs the use of these weights",
    ):
        assert words in text


def test_the_card_of_a_file_of_ones_own_tells_no_path_no_endpoint_and_claims_no_licence() -> None:
    more = '[rollouts]\nengine = "openai"\nbase_url = "http://inside:1/v1"\nmodel = "m"\napi_key_env = "SECRET_KEY"\n'
    text = card.text(settings("/secret/own.gguf", more), facts())
    assert "base_model" not in front_matter(text)
    assert front_matter(text)["license"] == "other"
    assert "own.gguf" in text
    for hidden in ("/secret", "inside", "SECRET_KEY"):
        assert hidden not in text


def test_a_name_on_the_hub_can_be_given_and_full_weights_are_no_adapter() -> None:
    config = settings("smollm2-135m", '[lora]\nrank = 0\n[export]\ngguf = false\nbase_model = "some/base"\n')
    told = front_matter(card.text(config, facts()))
    assert (told["base_model"], told["library_name"]) == ("some/base", "transformers")
    assert told["base_model_relation"] == "finetune"


def test_a_stage_taken_up_again_has_the_time_of_all_its_runs(tmp_path: Path) -> None:
    file, times = tmp_path / "stages.json", iter([0.0, 5.0, 10.0, 12.0])
    with pytest.raises(KeyboardInterrupt), record.timed(file, "rl", clock=lambda: next(times)):
        raise KeyboardInterrupt
    with record.timed(file, "rl", clock=lambda: next(times)):
        pass
    assert record.read(file)["rl"]["wall_s"] == 7.0
    file.write_text("{", encoding="utf-8")
    assert record.read(file) == {}
