"""DSPy's programs, whose language model is a cascade."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("dspy", reason="the dspy extra is not installed: see docs/integrations.md")

import dspy
from dspy import lm15

from corea import Cascade
from corea.errors import InputError
from corea.integrations.dspy import CascadeEngine, cascade_lm
from faults.endpoint import completion, served_from_a_thread
from integrations.scripted import EASY, HARD, Kept, cascade, prompts

# DSPy and what it stands on warn of what is theirs to mend.
pytestmark = pytest.mark.filterwarnings("ignore")

#: How DSPy asks a chat model to lay its answer out.
LARGE = "[[ ## answer ## ]]\n{total}\n\n[[ ## completed ## ]]"


def close(lm: dspy.LM) -> None:
    assert isinstance(lm.engine, CascadeEngine)
    lm.engine.close()


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
def made(kept: Kept) -> Cascade:
    return cascade(kept, on_large=LARGE, on_small="{total}\n[[ ## answer ## ]]\n{total}\n[[ ## completed ## ]]")


@pytest.fixture
def lm(made: Cascade) -> Iterator[dspy.LM]:
    model = cascade_lm(cascade=made, cache=False)
    yield model
    close(model)


def test_a_program_predicts_and_can_be_awaited(lm: dspy.LM, made: Cascade) -> None:
    add = dspy.Predict(dspy.Signature("question -> answer: int", "You add."))
    with dspy.context(lm=lm):
        assert add(question="20 and 30").answer == 50
        assert asyncio.run(add.acall(question="20 and 40")).answer == 60
    assert "You add." in prompts(made, 1)[0].messages[0].content


def test_a_copied_program_asks_the_same_cascade(lm: dspy.LM, kept: Kept) -> None:
    program = dspy.Predict("question -> answer")
    program.lm = lm
    copy = program.deepcopy()
    assert copy.lm is not lm
    assert copy(question="20 and 30").answer == "50"
    assert len(kept.traces) == 1


def test_history_tells_tier_confidence_and_cost(lm: dspy.LM, kept: Kept) -> None:
    assert lm(EASY)[0].startswith("Let me think.")
    entry = lm.history[-1]
    told = entry["response"].provider_data["corea"]
    assert (told["tier"], told["confidence"], told["trace_id"]) == ("small", 0.95, kept.traces[0].id)
    assert told["saved_nano_usd"] > 0
    assert entry["usage"]["prompt_tokens"] == 20


def test_answers_are_streamed(lm: dspy.LM) -> None:
    add = dspy.Predict("question -> answer")
    streamed = dspy.streamify(add, stream_listeners=[dspy.streaming.StreamListener("answer")])

    async def heard() -> list[object]:
        with dspy.context(lm=lm):
            return [event async for event in streamed(question="20 and 30")]

    *pieces, prediction = asyncio.run(heard())
    assert isinstance(prediction, dspy.Prediction)
    assert prediction.answer == "50"
    assert "".join(getattr(piece, "chunk", "") for piece in pieces).strip() == "50"


def test_dspys_cache_tells_cascades_apart(kept: Kept) -> None:
    # Fingerprint f00d each, as if of one configuration; then none at all.
    first, second = cascade_lm(cascade=cascade(kept)), cascade_lm(cascade=cascade(kept))
    assert first(HARD) == second(HARD) == ["Answer: 50"]
    assert len(kept.traces) == 1
    unnamed = cascade(kept)
    unnamed.fingerprint = ""
    third = cascade_lm(cascade=unnamed)
    assert third(HARD) == third(HARD) == ["Answer: 50"]
    assert len(kept.traces) == 3
    for lm in (first, second, third):
        close(lm)


def test_a_ready_cascade_is_not_saved(lm: dspy.LM, tmp_path: Path) -> None:
    program = dspy.Predict("question -> answer")
    program.lm = lm
    with pytest.raises(InputError, match="make the LM from a configuration file"):
        program.save(tmp_path / "program.json")


def test_settings_reach_the_tier_and_what_cannot_be_honoured_is_refused(lm: dspy.LM, made: Cascade) -> None:
    lm(EASY, temperature=0.7, max_tokens=99, stop=["\n\n"])
    prompt = prompts(made, 0)[0]
    assert (prompt.temperature, prompt.max_tokens, prompt.sampling) == (0.7, 99, {"stop": ("\n\n",)})
    with pytest.raises(dspy.LMUnsupportedFeatureError, match="cannot be told response_format"):
        lm(EASY, response_format={"type": "json_object"})
    tool = lm15.FunctionTool(name="add", description="adds", parameters={"type": "object", "properties": {}})
    with pytest.raises(dspy.LMUnsupportedFeatureError, match="calls no tools"):
        lm(lm15.Request(model=lm.model, messages=(lm15.Message.user(EASY),), tools=(tool,)))


def test_a_program_is_saved_with_the_path_of_its_configuration(tmp_path: Path) -> None:
    with served_from_a_thread(payload=completion("[[ ## answer ## ]]\n42\n[[ ## completed ## ]]")) as endpoint:
        config = tmp_path / "corea.toml"
        config.write_text(
            f'[[tiers]]\nname = "only"\nkind = "openai"\nbase_url = "{endpoint.base_url}"\nmodel = "served-model"\n'
        )
        program = dspy.Predict("question -> answer")
        program.lm = cascade_lm(config)
        program.save(tmp_path / "program.json")
        loaded = dspy.Predict("question -> answer")
        loaded.load(tmp_path / "program.json", allow_unsafe_lm_state=True)
        assert loaded(question="6 times 7").answer == "42"
        assert asyncio.run(loaded.acall(question="6 times 7")).answer == "42"
        config.write_text(config.read_text() + "max_tokens = 7\n")
        with pytest.raises(InputError, match="not the one this program was saved with"):
            loaded.load(tmp_path / "program.json", allow_unsafe_lm_state=True)
        close(program.lm)
        close(loaded.lm)
