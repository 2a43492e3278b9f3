"""The cascade, heard while it answers: what is buffered, what is live, and what a caller who leaves leaves behind."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from corea import Cascade
from corea.confidence import PTrue
from corea.errors import CascadeExhausted, LedgerError, UpstreamGarbage, UpstreamRefused
from corea.ledger import Ledger, get_trace
from corea.models.scripted import Hang, ScriptedModel, Written, scripted_answer, scripted_reply
from corea.run import Done, Text
from corea.tier import Sampling, Tier
from corea.types import Prompt, Trace
from test_cascade import CHEAP, Kept, ask, calls, large, small

LIVE = scripted_reply("The answer is 42")


def heard(*tiers: Tier, **settings: Any) -> tuple[list[Text], Trace | None, Exception | None]:
    """Texts, the trace at the end, or the error."""

    async def main() -> tuple[list[Text], Trace | None, Exception | None]:
        texts: list[Text] = []
        try:
            async for event in Cascade(tiers, **settings).stream("What is 6 × 7?"):
                if isinstance(event, Done):
                    return texts, event.trace, None
                texts.append(event)
        except (CascadeExhausted, LedgerError) as exc:
            return texts, None, exc
        raise AssertionError("the stream ended without a word")

    return asyncio.run(main())


def test_a_kept_answer_is_flushed_without_its_confidence_line() -> None:
    texts, trace, _ = heard(small(scripted_answer("42", digit=9)), large())
    assert trace is not None
    assert "".join(text.text for text in texts) == trace.text == "Let me think.\nAnswer: 42"
    assert {text.tier for text in texts} == {"small"}


def test_a_long_kept_answer_is_flushed_in_pieces() -> None:
    texts, trace, _ = heard(small(scripted_answer("42", digit=9, reasoning="word " * 500)), large())
    assert trace is not None
    assert len(texts) > 5
    assert "".join(text.text for text in texts) == trace.text


def test_the_last_tier_is_heard_word_by_word_and_nothing_of_the_deferred_one_is() -> None:
    texts, trace, _ = heard(small(scripted_answer("41", digit=1)), large(LIVE))
    assert [(text.text, text.tier) for text in texts] == [(word, "large") for word in ["The", " answer", " is", " 42"]]
    assert trace is not None
    assert trace.text == LIVE.text
    assert trace.deferred


def test_a_stream_costs_and_decides_what_an_ask_does() -> None:
    _, streamed, _ = heard(small(scripted_answer("41", digit=1)), large())
    asked = ask(small(scripted_answer("41", digit=1)), large())
    assert streamed is not None
    assert streamed.cost_nano_usd == asked.cost_nano_usd
    assert [attempt.decision for attempt in streamed.attempts] == [attempt.decision for attempt in asked.attempts]


def test_the_trace_is_kept_before_a_kept_answers_first_word() -> None:
    class Broken(Kept):
        async def write(self, trace: Trace) -> None:
            raise LedgerError("the disk is full; free some space")

    texts, trace, error = heard(small(scripted_answer("42", digit=9)), large(), ledger=Broken())
    assert (texts, trace) == ([], None)
    assert isinstance(error, LedgerError)


def test_a_stream_that_breaks_raises_and_the_trace_shows_what_went_out() -> None:
    kept = Kept()
    broken = Written(reply=LIVE, error=UpstreamGarbage("the stream was cut off"))
    texts, _, error = heard(small(scripted_answer("41", digit=1)), large(broken), ledger=kept, on_exhausted="best")
    assert isinstance(error, CascadeExhausted)
    assert "".join(text.text for text in texts) == LIVE.text
    (trace,) = kept.traces
    assert (trace.final, trace.attempts[1].text, trace.cost_nano_usd) == (None, LIVE.text, None)


def test_a_last_tier_that_fails_before_its_first_word_leaves_the_best_answer_there_is() -> None:
    texts, trace, _ = heard(
        small(scripted_answer("41", digit=1)), large(UpstreamRefused("no connection")), on_exhausted="best"
    )
    assert trace is not None
    assert trace.tier == "small"
    assert "".join(text.text for text in texts) == trace.text


def test_a_stream_closed_early_stops_the_model_and_leaves_a_trace() -> None:
    kept = Kept()
    last = large(Written(reply=LIVE, error=Hang()))

    async def main() -> None:
        cascade = Cascade([small(scripted_answer("41", digit=1)), last], ledger=kept)
        async with aclosing(cascade.stream("?")) as events:
            assert await anext(events) == Text(text="The", tier="large")

    asyncio.run(main())
    (trace,) = kept.traces
    first, second = trace.attempts
    assert first.cost_nano_usd is not None
    assert (second.cost_nano_usd, trace.cost_nano_usd, trace.final) == (None, None, None)
    assert second.failure is not None
    assert second.failure.kind == "Abandoned"
    assert second.text.startswith("The")
    assert isinstance(last.model, ScriptedModel)
    assert last.model.streams == 0


@pytest.mark.parametrize(
    "tiers",
    [
        pytest.param(lambda: (small(Hang()), large()), id="while the small model writes"),
        pytest.param(
            lambda: (small(scripted_answer("4"), Hang(), estimator=PTrue()), large()), id="while it is asked how sure"
        ),
        pytest.param(lambda: (small(scripted_answer("41", digit=1)), large(Hang())), id="while the large one writes"),
    ],
)
def test_a_cancelled_question_leaves_a_trace_of_unknown_cost(tiers: Any, tmp_path: Path) -> None:
    ledger = Ledger.open(f"sqlite:///{tmp_path / 'l.db'}")

    async def main() -> None:
        first, last = tiers()
        async with Cascade([first, last], ledger=ledger, on_exhausted="best") as cascade:
            question = asyncio.create_task(cascade.ask("?", metadata={"key": "k1"}))
            await _asked(first, last)
            question.cancel()
            with pytest.raises(asyncio.CancelledError):
                await question

    asyncio.run(main())
    with Ledger.open(f"sqlite:///{tmp_path / 'l.db'}") as reading:
        trace = get_trace(reading.engine, _only_id(reading))
    assert trace is not None
    assert (trace.final, trace.cost_nano_usd, trace.metadata) == (None, None, {"key": "k1"})
    assert trace.attempts[-1].failure is not None


def test_a_question_cancelled_while_the_ledger_has_no_room_is_recorded_all_the_same() -> None:
    class Full(Kept):
        def __init__(self) -> None:
            super().__init__()
            self.asked = asyncio.Event()

        async def write(self, trace: Trace) -> None:
            if not self.asked.is_set():
                self.asked.set()
                await asyncio.Event().wait()
            await super().write(trace)

    async def main() -> Full:
        ledger = Full()
        question = asyncio.create_task(
            Cascade([small(scripted_answer("42", digit=9)), large()], ledger=ledger).ask("?")
        )
        await ledger.asked.wait()
        question.cancel()
        with pytest.raises(asyncio.CancelledError):
            await question
        return ledger

    (trace,) = asyncio.run(main()).traces
    assert trace.tier == "small"


def test_a_listener_that_fails_leaves_a_trace_too() -> None:
    kept = Kept()

    async def deaf(text: Text) -> None:
        raise ConnectionResetError("gone")

    with pytest.raises(ConnectionResetError):
        asyncio.run(Cascade([large(LIVE)], ledger=kept).ask("?", hear=deaf))
    assert len(kept.traces) == 1


def test_the_users_sampling_reaches_every_tier_and_the_trace() -> None:
    first, last = small(scripted_answer("41", digit=1)), large()
    sampling = Sampling(max_tokens=7, temperature=0.5, seed=3, stop=("\n\n",), top_p=0.9)

    async def main() -> Trace:
        return await Cascade([first, last]).ask("?", sampling=sampling)

    trace = asyncio.run(main())
    for tier in (first, last):
        assert isinstance(tier.model, ScriptedModel)
        (prompt,) = tier.model.prompts
        assert isinstance(prompt, Prompt)
        assert (prompt.max_tokens, prompt.temperature, prompt.seed) == (7, 0.5, 3)
        assert prompt.sampling == {"stop": ("\n\n",), "top_p": 0.9}
    assert trace.metadata["sampling"]["seed"] == 3


def test_a_model_that_cannot_stream_is_heard_at_its_end() -> None:
    class Mute:
        name = "mute"

        async def complete(self, prompt: object, *, timeout_s: float | None = None) -> Any:
            return LIVE

        async def aclose(self) -> None:
            """Nothing to close."""

    texts, _, _ = heard(Tier(name="large", model=Mute(), price=CHEAP))
    assert [text.text for text in texts] == [LIVE.text]


async def _asked(first: Tier, last: Tier) -> None:
    """Wait until the script hangs."""
    for _ in range(20):
        await asyncio.sleep(0.001)
    assert calls(first)


def _only_id(ledger: Ledger) -> str:
    from corea.ledger import list_traces

    (row,) = list_traces(ledger.engine)
    return row.id
