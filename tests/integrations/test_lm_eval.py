"""A real run of the evaluation harness over a task of this test's own, answered by a cascade."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lm_eval", reason="the lm-eval extra is not installed: see docs/integrations.md")

import lm_eval
from lm_eval.api.instance import Instance
from lm_eval.tasks import TaskManager

from corea import Cascade
from corea.errors import CascadeExhausted, InputError, UpstreamRefused
from corea.integrations.lm_eval import CoreaLM
from corea.models.scripted import ScriptedModel, scripted_reply
from corea.tier import Tier
from integrations.scripted import EASY, HARD, Kept, cascade, prompts

# The harness and what it stands on warn of what is theirs to mend.
pytestmark = pytest.mark.filterwarnings("ignore")

DOCS = [(EASY, "5"), (HARD, "50"), ("1 + 1?", "3")]


def task(folder: Path, **more: Any) -> dict[str, Any]:
    """Sums, whose answers may be surrounded by words."""
    lines = [json.dumps({"question": question, "answer": answer}) for question, answer in DOCS]
    (folder / "sums.jsonl").write_text("\n".join(lines))
    return {
        "task": "sums",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "sums.jsonl")}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{answer}}",
        "generation_kwargs": {"until": ["Question:", "\n\n"], "do_sample": False, "temperature": 0.0},
        "filter_list": [
            {
                "name": "last",
                "filter": [{"function": "regex", "regex_pattern": r"Answer: (\d+)"}, {"function": "take_first"}],
            }
        ],
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
        **more,
    }


def evaluate(model: CoreaLM, made: dict[str, Any], **settings: Any) -> dict[str, Any]:
    found = lm_eval.simple_evaluate(
        model=model, tasks=[made], task_manager=TaskManager(include_defaults=False), bootstrap_iters=0, **settings
    )
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("chat", [False, True])
def test_a_task_is_answered_and_scored_and_its_costs_stand_beside_the_score(tmp_path: Path, chat: bool) -> None:
    kept = Kept()
    made = cascade(kept)
    model = CoreaLM(cascade=made)
    settings = {"apply_chat_template": True, "system_instruction": "You add."} if chat else {}
    found = evaluate(model, task(tmp_path), **settings)
    model.close()
    assert found["results"]["sums"]["exact_match,last"] == pytest.approx(2 / 3)
    told = found["config"]
    assert (told["corea_fingerprint"], told["corea_answers"], told["corea_deferred"]) == ("f00d", 3, 1)
    assert told["corea_cost_nano_usd"] == sum(trace.cost_nano_usd or 0 for trace in kept.traces) > 0
    assert {one["tier"] for one in model.told} == {"small", "large"}
    first = prompts(made, 0)[0].messages
    assert ("You add." in first[0].content) == chat
    # Nothing but what the tier itself asks: no ends that would cut off its confidence.
    assert [trace.metadata for trace in kept.traces] == [{}] * 3


def asked(*questions: str, **settings: Any) -> list[Instance]:
    return [
        Instance(request_type="generate_until", doc={}, arguments=(question, settings), idx=index)
        for index, question in enumerate(questions)
    ]


def test_an_answer_ends_where_its_task_says() -> None:
    model = CoreaLM(cascade=cascade(on_large="Answer: {total}\nQuestion: another?"))
    assert model.generate_until(asked(HARD, until=["Question:", "never"])) == ["Answer: 50\n"]
    assert model.generate_until(asked(EASY, HARD, until="Answer")) == ["Let me think.\n", ""]
    assert model.generate_until(asked(EASY, until=[])) == ["Let me think.\nAnswer: 5"]
    model.close()


def test_sampling_that_a_task_asks_for_reaches_the_tier() -> None:
    made = cascade()
    model = CoreaLM(cascade=made)
    model.generate_until(asked(EASY, do_sample=True, temperature=0.7, max_gen_toks=99))
    assert (prompts(made, 0)[0].temperature, prompts(made, 0)[0].max_tokens) == (0.7, 99)
    with pytest.raises(InputError, match="cannot be told num_beams"):
        model.generate_until(asked(EASY, num_beams=2))
    model.close()


@pytest.mark.parametrize("output_type", ["loglikelihood", "loglikelihood_rolling"])
def test_a_task_of_log_likelihoods_is_told_which_tasks_work(tmp_path: Path, output_type: str) -> None:
    model = CoreaLM(cascade=cascade())
    with pytest.raises(InputError, match=f"has no {output_type}; choose tasks whose output_type is generate_until"):
        evaluate(model, task(tmp_path, output_type=output_type, metric_list=[], filter_list=None))
    model.close()


def test_an_unanswered_question_ends_the_run_and_the_answers_before_it_are_cached() -> None:
    down = ScriptedModel("down", replies=lambda prompt, index: UpstreamRefused("no") if index else scripted_reply("5"))
    model = CoreaLM(cascade=Cascade((Tier(name="only", model=down),)), num_concurrent=1)
    cached: list[tuple[Any, ...]] = []

    class Hook:
        def add_partial(self, *told: Any) -> None:
            cached.append(told)

    model.set_cache_hook(Hook())
    with pytest.raises(CascadeExhausted):
        model.generate_until(asked(EASY, HARD))
    model.close()
    assert cached == [("generate_until", (EASY, {}), "5")]


def test_half_an_answer_is_refused() -> None:
    model = CoreaLM(cascade=cascade())
    with pytest.raises(InputError, match="leave gen_prefix out"):
        model.apply_chat_template([{"role": "user", "content": "?"}], add_generation_prompt=False)
    model.close()
