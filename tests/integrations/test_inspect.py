"""A real Inspect evaluation whose model is a cascade: scores, what each sample keeps, and what is refused."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("inspect_ai", reason="the inspect extra is not installed: see docs/integrations.md")

from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.log import EvalLog
from inspect_ai.model import (
    ChatMessageUser,
    ContentImage,
    ContentText,
    GenerateConfig,
    Model,
    ModelOutput,
    ModelUsage,
    get_model,
)
from inspect_ai.scorer import includes
from inspect_ai.solver import Solver, generate
from inspect_ai.tool import Tool, tool

from corea import Cascade
from corea.errors import InputError
from corea.integrations.inspect_ai import cascade as cascade_solver
from faults.endpoint import served_from_a_thread
from integrations.scripted import EASY, HARD, Kept, cascade, prompts

# Inspect's dependencies warn of what is theirs to mend.
pytestmark = pytest.mark.filterwarnings("ignore")

SAMPLES = [
    Sample(id=1, input=EASY, target="5"),
    Sample(id=2, input=HARD, target="50"),
    Sample(id=3, input="1 + 1?", target="3"),
]


def of(made: Cascade) -> Model:
    return get_model("corea/test", cascade=made, memoize=False)


def run(model: Model | str, folder: Path, *solvers: Solver, **settings: Any) -> EvalLog:
    task = Task(dataset=SAMPLES, solver=list(solvers), scorer=includes())
    [log] = eval(task, model=model, log_dir=str(folder), display="none", **settings)
    return log


def test_three_samples_are_answered_scored_and_keep_what_the_cascade_knows(tmp_path: Path) -> None:
    kept = Kept()
    log = run(of(cascade(kept)), tmp_path, cascade_solver())
    assert log.status == "success", log.error
    assert log.results is not None
    assert log.results.scores[0].metrics["accuracy"].value == pytest.approx(2 / 3)
    assert log.samples is not None
    told = {sample.id: sample.metadata["corea"] for sample in log.samples}
    assert [told[id]["tier"] for id in (1, 2, 3)] == ["small", "large", "small"]
    assert [told[id]["confidence"] for id in (1, 2, 3)] == [0.95, None, 0.95]
    assert {told[id]["trace_id"] for id in told} == {trace.id for trace in kept.traces}
    [usage] = log.stats.model_usage.values()
    assert usage.total_cost == pytest.approx(sum(one["cost_nano_usd"] for one in told.values()) / 1e9)


def test_without_the_solver_it_is_a_model_like_any_other(tmp_path: Path) -> None:
    made = cascade()
    log = run(of(made), tmp_path, generate(), temperature=0.3, stop_seqs=["\n\n"])
    assert log.status == "success", log.error
    assert log.samples is not None
    assert sorted(sample.output.completion for sample in log.samples)[0] == "Answer: 50"
    assert {(prompt.temperature, str(prompt.sampling)) for prompt in prompts(made, 0)} == {
        (0.3, "{'stop': ('\\n\\n',)}")
    }


def test_a_configuration_file_is_all_it_needs(tmp_path: Path) -> None:
    with served_from_a_thread() as endpoint:
        config = tmp_path / "corea.toml"
        config.write_text(
            f'[[tiers]]\nname = "only"\nkind = "openai"\nbase_url = "{endpoint.base_url}"\nmodel = "served-model"\n'
        )
        log = run("none/none", tmp_path, cascade_solver(config_file=str(config)))
    assert log.status == "success", log.error
    assert log.samples is not None
    assert {sample.metadata["corea"]["model"] for sample in log.samples} == {"served-model"}


def test_a_solver_that_finds_no_cascade_says_what_to_do(tmp_path: Path) -> None:
    other = get_model("mockllm/model", custom_outputs=[ModelOutput(usage=ModelUsage())] * 3)
    log = run(other, tmp_path, cascade_solver())
    assert log.status == "error"
    assert log.error is not None
    assert "use --model corea/NAME, or name a config_file" in log.error.message


@tool
def add() -> Tool:
    async def execute(a: int, b: int) -> int:
        """Add two numbers.

        Args:
            a: One.
            b: The other.
        """
        return a + b

    return execute


@pytest.mark.parametrize(
    "settings, told",
    [
        ({"num_choices": 2}, "cannot be told num_choices"),
        ({"logprobs": True, "top_k": 4}, "cannot be told logprobs, top_k"),
    ],
)
def test_settings_that_would_be_ignored_are_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        asyncio.run(of(cascade()).generate(EASY, config=GenerateConfig(**settings)))


def test_tools_and_pictures_are_refused() -> None:
    with pytest.raises(InputError, match="a cascade calls no tools"):
        asyncio.run(of(cascade()).generate(EASY, tools=[add()]))
    picture = ChatMessageUser(content=[ContentImage(image="data:image/png;base64,")])
    with pytest.raises(InputError, match="leave out images"):
        asyncio.run(of(cascade()).generate([picture]))


def test_a_cascade_is_closed_with_its_model() -> None:
    kept = Kept()

    async def ask() -> str:
        async with of(cascade(kept)) as model:
            return str((await model.generate([ChatMessageUser(content=[ContentText(text=EASY)])])).completion)

    assert asyncio.run(ask()) == "Let me think.\nAnswer: 5"
    assert kept.closed


def test_an_argument_that_it_does_not_take_is_named() -> None:
    with pytest.raises(InputError, match="takes no threshold; -M config_file=PATH"):
        get_model("corea/test", threshold=0.5)
