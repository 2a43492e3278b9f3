"""Streaming over HTTP against a server that misbehaves: the right error, no second try after a word, no open line."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import pytest

from corea.errors import ModelError, RateLimited, UpstreamGarbage, UpstreamRefused, UpstreamStatus, UpstreamTimeout
from corea.models.base import Delta, StreamingModel, deltas
from corea.models.openai import OpenAIModel
from corea.models.scripted import Hang, ScriptedModel, Written, scripted_reply
from corea.types import Message, Prompt, Reply
from faults.endpoint import TEXT, Fault, FaultyEndpoint
from faults.streaming import chunk, event, events_of, stream, whole

PROMPT = Prompt(messages=(Message(role="user", content="What is 6 × 7?"),), max_tokens=64)
BEGUN = [event(chunk("")), event(chunk("Six "))]


async def no_pause(pause_s: float) -> None:
    """Tries again at once."""


def model_of(endpoint: FaultyEndpoint, **options: Any) -> OpenAIModel:
    settings: dict[str, Any] = {"rng": random.Random(1), "sleep": no_pause, "api_key": "sk-canary", **options}
    return OpenAIModel("large", base_url=endpoint.base_url, model="asked-model", **settings)


class Heard:
    """What a stream came to."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.reply: Reply | None = None
        self.error: ModelError | None = None
        self.requests: list[dict[str, Any]] = []
        self.connections = 0


def hear(*faults: str | Fault, timeout_s: float | None = 5.0, calls: int = 1, **options: Any) -> Heard:
    heard = Heard()

    async def main() -> None:
        async with FaultyEndpoint(*faults) as endpoint:
            model = model_of(endpoint, **options)
            for _ in range(calls):
                try:
                    async with aclosing(model.stream(PROMPT, timeout_s=timeout_s)) as pieces:
                        async for delta in pieces:
                            heard.texts.append(delta.text)
                            heard.reply = delta.reply
                except ModelError as error:
                    heard.error = error
            heard.requests = [request.body for request in endpoint.requests]
            heard.connections = len(endpoint.connections)
            await model.aclose()

    asyncio.run(main())
    return heard


def test_the_models_stream() -> None:
    assert isinstance(model_of(FaultyEndpoint()), StreamingModel)
    assert isinstance(ScriptedModel("m", replies=[Hang()]), StreamingModel)


def test_a_stream_is_heard_in_pieces_and_ends_with_the_whole_reply() -> None:
    heard = hear(whole())
    assert heard.texts == [*TEXT.splitlines(keepends=True), ""]
    assert heard.reply is not None
    assert (heard.reply.text, heard.reply.finish_reason, heard.reply.model) == (TEXT, "stop", "served-model")
    assert heard.reply.usage is not None
    assert heard.reply.usage.completion_tokens == 12


def test_a_stream_asks_for_its_usage_unless_the_server_cannot_tell() -> None:
    (asked,) = hear(whole()).requests
    assert (asked["stream"], asked["stream_options"]) == (True, {"include_usage": True})
    (plain,) = hear(whole(), extra_body={"stream_options": None}).requests
    assert "stream_options" not in plain


def test_a_server_that_cannot_stream_is_heard_all_at_once() -> None:
    heard = hear("ok")
    assert heard.texts == [TEXT]
    assert heard.reply is not None


def test_streams_in_turn_share_one_connection() -> None:
    assert hear(whole(), calls=3).connections == 1


@pytest.mark.parametrize(
    "fault,kind,texts",
    [
        ("refuse", UpstreamRefused, []),
        ("status_500", UpstreamStatus, []),
        ("status_429", RateLimited, []),
        ("html_200", UpstreamGarbage, []),
        ("hang", UpstreamTimeout, []),
        (stream([], then="hang"), UpstreamTimeout, []),
        (stream([]), UpstreamGarbage, []),
        (stream(BEGUN), UpstreamGarbage, ["Six "]),
        (stream(BEGUN, then="cut"), UpstreamGarbage, ["Six "]),
        (stream(BEGUN, then="hang"), UpstreamTimeout, ["Six "]),
        (stream([*BEGUN, b"data: {\n\n"]), UpstreamGarbage, ["Six "]),
        (stream([*BEGUN, event({"error": {"message": "overloaded"}})]), UpstreamGarbage, ["Six "]),
        (stream([event(chunk("x" * 1000))] * 1000), UpstreamGarbage, None),
    ],
)
def test_a_broken_stream_becomes_its_error_and_never_a_reply(
    fault: str | Fault, kind: type[ModelError], texts: list[str] | None
) -> None:
    timeout_s = 0.3 if kind is UpstreamTimeout else 5.0
    heard = hear(fault, timeout_s=timeout_s, max_retries=0, max_response_bytes=500_000)
    assert type(heard.error) is kind
    assert heard.reply is None
    assert texts is None or heard.texts == texts
    assert str(heard.error).isprintable()
    assert "sk-canary" not in str(heard.error)


@pytest.mark.parametrize("fault", ["status_500", "status_429_ms", "reset", "hang_up", stream([], then="cut")])
def test_a_stream_that_fails_before_its_first_word_is_tried_again(fault: str | Fault) -> None:
    heard = hear(fault, whole())
    assert heard.error is None
    assert heard.reply is not None
    assert len(heard.requests) == 2


def test_a_stream_that_breaks_after_a_word_is_not_tried_again() -> None:
    heard = hear(stream(BEGUN, then="cut"), whole())
    assert isinstance(heard.error, UpstreamGarbage)
    assert len(heard.requests) == 1


@pytest.mark.parametrize("parts", [[], BEGUN], ids=["before the first word", "after it"])
def test_a_cancelled_stream_hangs_up(parts: list[bytes]) -> None:
    async def main() -> None:
        async with FaultyEndpoint(stream(parts, then="hang")) as endpoint:
            model = model_of(endpoint)
            call = asyncio.create_task(_drain(model))
            await endpoint.asked()
            await asyncio.sleep(0.05)
            call.cancel()
            assert await endpoint.disconnected(within_s=1.0)
            with contextlib.suppress(asyncio.CancelledError):
                await call
            await model.aclose()

    asyncio.run(main())


def test_a_stream_closed_between_two_words_hangs_up() -> None:
    async def main() -> None:
        async with FaultyEndpoint(stream(BEGUN, then="hang")) as endpoint:
            model = model_of(endpoint)
            async with aclosing(deltas(model, PROMPT)) as pieces:
                assert await anext(pieces) == Delta(text="Six ")
            assert await endpoint.disconnected(within_s=1.0)
            await model.aclose()

    asyncio.run(main())


@pytest.mark.parametrize("split", [1, 7, 50])
def test_events_may_arrive_in_any_pieces(split: int) -> None:
    sent = b"".join(events_of())
    heard = hear(stream([sent[at : at + split] for at in range(0, len(sent), split)]))
    assert heard.reply is not None
    assert "".join(heard.texts) == heard.reply.text == TEXT


class Mute:
    """A model without a stream."""

    name = "mute"

    async def complete(self, prompt: Prompt, *, timeout_s: float | None = None) -> Reply:
        return scripted_reply("all at once")

    async def aclose(self) -> None:
        """Nothing to close."""


def test_a_model_without_a_stream_yields_its_whole_reply() -> None:
    assert [delta.text for delta in collected(lambda: Mute())] == ["all at once"]


def test_a_scripted_model_streams_word_by_word_and_closes() -> None:
    model = ScriptedModel("m", replies=[Written(reply=scripted_reply("one two three"))])
    pieces = collected(lambda: model)
    assert [delta.text for delta in pieces] == ["one", " two", " three", ""]
    assert pieces[-1].reply is not None
    assert model.streams == 0


def test_a_scripted_stream_breaks_where_the_script_says() -> None:
    broken = Written(reply=scripted_reply("one two"), error=UpstreamGarbage("cut"))
    with pytest.raises(UpstreamGarbage, match="cut"):
        collected(lambda: ScriptedModel("m", replies=[broken]))


def collected(model: Callable[[], Any]) -> list[Delta]:
    async def main() -> list[Delta]:
        return [delta async for delta in deltas(model(), PROMPT, timeout_s=1.0)]

    return asyncio.run(main())


async def _drain(model: OpenAIModel) -> None:
    async for _ in model.stream(PROMPT):
        pass
