"""One cascade, asked from threads, from loops that come and go, and by people who leave."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from concurrent.futures import CancelledError, ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corea import Cascade
from corea.errors import ExtraMissing, InputError
from corea.extras import extra
from corea.integrations.bridge import Bridge, conversation, facts, sampling_of
from corea.models.scripted import Hang, ScriptedModel, Written, scripted_reply
from corea.run import Done, Text
from corea.tier import AS_CONFIGURED, Sampling, Tier
from corea.types import Message, Prompt, Reply, Request, Trace
from integrations.scripted import EASY, HARD, Kept, cascade


def test_threads_and_passing_loops_ask_one_cascade() -> None:
    kept = Kept()
    bridge = Bridge(cascade(kept))
    with ThreadPoolExecutor(4) as pool:
        traces = list(pool.map(bridge.ask, [Request.of(EASY), Request.of(HARD)] * 4))
    traces += [asyncio.run(bridge.aask(Request.of(EASY))) for _ in range(2)]
    bridge.close()
    assert [(trace.answer, trace.tier) for trace in traces] == [("5", "small"), ("50", "large")] * 4 + [
        ("5", "small")
    ] * 2
    assert len(kept.traces) == 10
    assert kept.closed


def test_a_stream_says_what_ask_says_in_a_thread_and_in_a_loop() -> None:
    bridge = Bridge(cascade())
    events = list(bridge.stream(Request.of(HARD)))

    async def heard() -> list[Text | Done]:
        return [event async for event in bridge.astream(Request.of(HARD))]

    for told in (events, asyncio.run(heard())):
        *texts, done = told
        assert isinstance(done, Done)
        assert "".join(text.text for text in texts if isinstance(text, Text)) == done.trace.text == "Answer: 50"
        assert len(texts) > 1
    bridge.close()


def written_forever(kept: Kept) -> tuple[Cascade, ScriptedModel]:
    model = ScriptedModel("slow", replies=[Written(reply=scripted_reply("one two three"), error=Hang())])
    return Cascade((Tier(name="only", model=model),), ledger=kept), model


def test_who_stops_listening_stops_the_model_and_leaves_a_trace() -> None:
    kept = Kept()
    made, model = written_forever(kept)
    bridge = Bridge(made)
    stream = bridge.stream(Request.of(EASY))
    assert isinstance(next(stream), Text)
    stream.close()
    assert model.streams == 0
    assert [attempt.failure.kind for attempt in kept.traces[0].attempts if attempt.failure] == ["Abandoned"]
    bridge.close()


class Unhurried(Kept):
    """A ledger that other work overtakes."""

    async def write(self, trace: Trace) -> None:
        for _ in range(50):
            await asyncio.sleep(0)
        await super().write(trace)


def test_a_task_that_is_cancelled_while_it_waits_stops_the_model_and_leaves_a_trace() -> None:
    kept = Unhurried()
    made, model = written_forever(kept)
    bridge = Bridge(made)

    async def leave() -> list[str]:
        heard: list[str] = []
        third = asyncio.Event()

        async def listen() -> None:
            async for event in bridge.astream(Request.of(EASY)):
                assert isinstance(event, Text)
                heard.append(event.text)
                if len(heard) == 3:
                    third.set()

        task = asyncio.create_task(listen())
        await third.wait()
        # A turn of the bridge's loop: now the fourth is waited for there, too.
        await bridge.arun(asyncio.sleep(0))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return heard

    assert asyncio.run(leave()) == ["one", " two", " three"]
    assert model.streams == 0
    assert [attempt.text for attempt in kept.traces[0].attempts] == ["one two three"]
    bridge.close()


def test_closing_breaks_off_what_is_under_way_and_its_traces_are_kept() -> None:
    kept = Kept()
    asked = threading.Event()

    class Told(ScriptedModel):
        """Says when it is asked."""

        async def complete(self, prompt: Prompt, *, timeout_s: float | None = None) -> Reply:
            asked.set()
            return await super().complete(prompt, timeout_s=timeout_s)

    model = Told("hangs", replies=[Hang()])
    bridge = Bridge(Cascade((Tier(name="only", model=model),), ledger=kept))
    with ThreadPoolExecutor(1) as pool:
        question = pool.submit(bridge.ask, Request.of(EASY))
        assert asked.wait(10)
        bridge.close()
        with pytest.raises(CancelledError):
            question.result(10)
    assert [attempt.failure.kind for attempt in kept.traces[0].attempts if attempt.failure] == ["Abandoned"]
    assert kept.closed


def test_a_closed_bridge_says_so_and_its_thread_is_gone() -> None:
    before = threading.active_count()
    bridge = Bridge(cascade())
    assert threading.active_count() == before + 1
    bridge.close()
    bridge.close()
    assert threading.active_count() == before
    with pytest.raises(InputError, match="was closed; make a new one"):
        bridge.ask(Request.of(EASY))
    with pytest.raises(InputError, match="was closed; make a new one"):
        asyncio.run(bridge.aask(Request.of(EASY)))


def test_a_process_that_forgets_to_close_ends_quietly() -> None:
    code = (
        "from corea.integrations.bridge import Bridge\nfrom corea.types import Request\n"
        "from integrations.scripted import EASY, cascade\n"
        "print(Bridge(cascade()).ask(Request.of(EASY)).answer)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "5\n", "")


def test_either_a_configuration_or_a_cascade() -> None:
    with pytest.raises(InputError, match="not both"):
        Bridge.to("corea.toml", cascade())


def test_roles_of_all_frameworks_are_understood_and_others_refused() -> None:
    request = conversation([("developer", "Be brief."), ("human", "1?"), ("ai", "1."), ("user", "2?")])
    assert [message.role for message in request.messages] == ["system", "user", "assistant", "user"]
    assert request.messages[-1] == Message(role="user", content="2?")
    with pytest.raises(InputError, match="takes no tool messages"):
        conversation([("tool", "42")])
    with pytest.raises(InputError, match="answers text"):
        conversation([("user", [{"type": "image_url"}])])


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "max_tokens": st.none() | st.integers(1, 100),
            "temperature": st.none() | st.floats(0, 2),
            "seed": st.none() | st.integers(0, 9),
            "stop": st.none() | st.just(()) | st.just(("END", "\n")),
        },
    )
)
def test_what_is_not_set_is_left_to_the_tier(given_settings: dict[str, object]) -> None:
    chosen = sampling_of(given_settings)
    expected = {name: value for name, value in given_settings.items() if value not in (None, ())}
    assert chosen.set() == expected
    assert (chosen is AS_CONFIGURED) == (not expected)


def test_one_stop_text_is_a_list_of_one_and_an_unknown_setting_is_named() -> None:
    assert sampling_of({"stop": "\n"}) == Sampling(stop=("\n",))
    with pytest.raises(InputError, match="cannot be told logit_bias, top_k; it takes max_tokens"):
        sampling_of({"top_k": 3, "logit_bias": {}, "seed": 1})


def test_facts_are_what_the_trace_says() -> None:
    bridge = Bridge(cascade())
    trace = bridge.ask(Request.of(HARD))
    bridge.close()
    assert facts(trace) == {
        "trace_id": trace.id,
        "tier": "large",
        "model": "large-model",
        "confidence": None,
        "deferred": True,
        "reason": "last_tier",
        "cost_nano_usd": trace.cost_nano_usd,
        "saved_nano_usd": trace.saved_nano_usd,
    }
    assert trace.cost_nano_usd is not None
    assert trace.saved_nano_usd is not None
    assert trace.saved_nano_usd < 0 < trace.cost_nano_usd


def test_a_missing_framework_names_its_extra() -> None:
    with (
        pytest.raises(ExtraMissing, match=r"no_such_framework is not installed; run: pip install 'corea\[dspy\]'"),
        extra("dspy"),
    ):
        __import__("no_such_framework.part")
