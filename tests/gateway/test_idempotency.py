"""A request that is sent again gets the first one's answer, byte for byte, and costs nothing: over replicas too."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Mapping
from typing import Any

import httpx
import openai
import pytest

from corea.errors import LedgerError, UpstreamStatus
from corea.gateway.auth import Caller
from corea.gateway.idempotency import MOST_BYTES, InMemory
from corea.ledger import Ledger, list_traces
from corea.ledger.replays import Claim, Found, Kept, StoredReplays
from corea.models.scripted import ScriptedModel, Written, scripted_answer, scripted_reply
from corea.tier import Tier
from gateway.running import UNSURE, Running, large, serving, small
from ledger.stores import Place

ASKED: dict[str, Any] = {"model": "corea", "messages": [{"role": "user", "content": "What is 6 × 7?"}]}
REPLAYED = "x-corea-idempotent-replay"


def post(
    running: Running,
    body: Mapping[str, Any] = ASKED,
    key: str | None = "k-1",
    path: str = "chat/completions",
    **more: str,
) -> httpx.Response:
    headers = {**({} if key is None else {"Idempotency-Key": key}), **more}
    return httpx.post(f"{running.url}/v1/{path}", json=body, headers=headers, timeout=20)


def asked(running: Running) -> int:
    """How often the small model was asked."""
    model = running.gateway.cascade.tiers[0].model
    assert isinstance(model, ScriptedModel)
    return len(model.prompts)


@pytest.mark.parametrize("path", ["chat/completions", "completions", "responses"])
@pytest.mark.parametrize("stream", [False, True])
def test_the_same_request_gets_the_same_answer_and_is_billed_once(path: str, stream: bool) -> None:
    body = {"model": "corea", "messages": ASKED["messages"], "stream": stream}
    if path != "chat/completions":
        del body["messages"]
        body |= {"prompt": "?"} if path == "completions" else {"input": "?"}
    with serving() as running:
        first, second = (post(running, body, path=path) for _ in range(2))
        assert (first.status_code, second.status_code) == (200, 200)
        assert second.content == first.content
        assert REPLAYED not in first.headers
        assert second.headers[REPLAYED] == "true"
        assert second.headers["content-type"] == first.headers["content-type"]
        assert second.headers["x-corea-trace-id"] == first.headers["x-corea-trace-id"]
        assert second.headers["x-request-id"] != first.headers["x-request-id"]
        assert len(running.ledger.traces) == asked(running) == 1


def test_a_client_of_openai_reads_a_replayed_stream() -> None:
    with serving(small(UNSURE), large()) as running:
        client = openai.OpenAI(base_url=f"{running.url}/v1", api_key="x", max_retries=0)
        texts = [
            "".join(
                chunk.choices[0].delta.content or ""
                for chunk in client.chat.completions.create(
                    **ASKED, stream=True, extra_headers={"Idempotency-Key": "k"}
                )
                if chunk.choices
            )
            for _ in range(2)
        ]
        assert texts[0] == texts[1] != ""
        assert len(running.ledger.traces) == 1


def test_without_the_header_every_request_is_its_own() -> None:
    with serving() as running:
        answers = [post(running, key=None) for _ in range(2)]
        assert all(REPLAYED not in answer.headers for answer in answers)
        assert len(running.ledger.traces) == 2


def test_the_same_key_with_another_body_or_path_is_refused() -> None:
    with serving() as running:
        post(running)
        for answer in (post(running, {**ASKED, "seed": 1}), post(running, path="completions")):
            assert answer.status_code == 422
            assert answer.json()["error"]["code"] == "idempotency_key_reused"
            assert answer.headers["x-should-retry"] == "false"
        assert len(running.ledger.traces) == 1


@pytest.mark.parametrize("key", ["", "x" * 256, "tab\there"])
def test_a_key_that_is_none_is_refused(key: str) -> None:
    with serving() as running:
        answer = post(running, key=key)
        assert answer.status_code == 400
        assert answer.json()["error"]["code"] == "invalid_idempotency_key"
        assert asked(running) == 0


def test_what_failed_is_not_kept() -> None:
    with serving(small(UpstreamStatus("small: HTTP 500", status=500), scripted_answer("42", digit=9))) as running:
        statuses = [post(running, {**ASKED, "model": "small"}).status_code for _ in range(3)]
        assert statuses == [502, 200, 200]
        assert asked(running) == 2


def test_a_stream_that_broke_off_is_not_kept() -> None:
    broken = Written(reply=scripted_reply("one two three"), error=UpstreamStatus("large: HTTP 500", status=500))
    with serving(large(broken, scripted_reply("four"))) as running:
        first, second = (post(running, {**ASKED, "stream": True}) for _ in range(2))
        assert '"error"' in first.text
        assert "[DONE]" not in first.text
        assert "four" in second.text
        assert REPLAYED not in second.headers


def test_a_stream_that_broke_off_is_not_kept_either_where_its_key_could_not_be_given_back() -> None:
    class Stuck(InMemory):
        async def release(self, claim: Claim) -> None:
            raise LedgerError("the database is away")

    broken = Written(reply=scripted_reply("one two three"), error=UpstreamStatus("large: HTTP 500", status=500))
    with serving(large(broken)) as running:
        assert running.gateway.idempotency is not None
        running.gateway.idempotency._replays = Stuck(Clock())
        assert '"error"' in post(running, {**ASKED, "stream": True}).text
        assert post(running, {**ASKED, "stream": True}).status_code == 409


def test_a_wrong_request_takes_no_key() -> None:
    with serving() as running:
        assert post(running, {"model": "corea"}).status_code == 400
        assert post(running).status_code == 200


def test_a_second_request_while_the_first_runs_is_told_to_come_back() -> None:
    held = threading.Event()

    class Slow:
        name = "slow"

        async def complete(self, prompt: object, *, timeout_s: float | None = None) -> Any:
            started.set()
            await asyncio.to_thread(held.wait, 20)
            return scripted_reply("done")

        async def aclose(self) -> None:
            """Nothing to close."""

    started = threading.Event()
    answers: list[httpx.Response] = []
    with serving(Tier(name="large", model=Slow())) as running:
        first = threading.Thread(target=lambda: answers.append(post(running)))
        first.start()
        assert started.wait(10)
        second = post(running)
        held.set()
        first.join(20)
        assert second.status_code == 409
        assert second.json()["error"]["code"] == "idempotency_key_in_use"
        assert (second.headers["retry-after"], second.headers["x-should-retry"]) == ("1", "true")
        assert answers[0].status_code == 200
        assert post(running).content == answers[0].content


def test_a_key_is_its_callers_own() -> None:
    class ByName:
        """Whoever says who they are is believed."""

        has_keys = True

        async def authorize(self, headers: Mapping[str, str]) -> Caller:
            return Caller(id=headers["authorization"])

        async def reserve(self, caller: Caller, **expected: object) -> Mapping[str, Any]:
            return {"key": caller.id}

        async def settle(self, trace: object) -> None: ...

        async def release(self, reserved: object) -> None: ...

        async def aclose(self) -> None: ...

    with serving(authorizer=ByName()) as running:
        answers = [post(running, Authorization=who) for who in ("ann", "bob", "ann")]
        assert [REPLAYED in answer.headers for answer in answers] == [False, False, True]


def test_zero_seconds_ignore_the_header() -> None:
    with serving(idempotency_s=0) as running:
        assert all(REPLAYED not in post(running).headers for _ in range(2))


def test_an_answer_too_large_to_keep_is_given_all_the_same() -> None:
    with serving(small(scripted_reply("x" * (MOST_BYTES + 1)), threshold=None, estimator=None)) as running:
        answers = [post(running) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [200, 200]
        assert REPLAYED not in answers[1].headers


def test_two_replicas_on_one_database_answer_once(place: Place) -> None:
    with (
        Ledger.open(place.url) as one,
        Ledger.open(place.url) as two,
        serving(recorder=one) as first,
        serving(recorder=two) as second,
    ):
        answers = [post(first), post(second), post(second, {**ASKED, "seed": 1})]
        assert [answer.status_code for answer in answers] == [200, 200, 422]
        assert answers[1].content == answers[0].content
        assert answers[1].headers[REPLAYED] == "true"
        assert asked(second) == 0
        (row,) = list_traces(one)
        assert row.id == answers[0].headers["x-corea-trace-id"]
        stored = json.dumps(place.sql("SELECT id, fingerprint FROM replays"))
        assert "k-1" not in stored
        assert "6 × 7" not in stored


@pytest.mark.parametrize("policy", [{"store_texts": False}, {"redact": ("7",)}])
def test_a_ledger_that_must_not_hold_answers_holds_none(place: Place, policy: dict[str, Any]) -> None:
    with Ledger.open(place.url, **policy) as ledger, serving(recorder=ledger) as running:
        answers = [post(running) for _ in range(2)]
        assert answers[1].headers[REPLAYED] == "true"
        assert answers[1].content == answers[0].content
        assert place.sql("SELECT count(*) FROM replays") == [(0,)]


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


KEPT = Kept(status=200, headers={"content-type": "application/json"}, body=b"{}\x00\xff")


def claim(holder: str, id: str = "id") -> Claim:
    return Claim(id=id, fingerprint="f", holder=holder)


def test_of_many_who_claim_at_once_one_gets_it(ledger: Ledger) -> None:
    stores = [StoredReplays(ledger.engine) for _ in range(8)]
    found: list[Found | None] = []
    threads = [
        threading.Thread(target=lambda n=n: found.append(stores[n].claim(claim(f"h{n}"), lease_s=60))) for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert found.count(None) == 1
    assert found.count(Found(fingerprint="f", kept=None)) == 7


def test_a_stored_answer_comes_back_whole_until_it_expires(ledger: Ledger) -> None:
    clock = Clock()
    replays = StoredReplays(ledger.engine, clock=clock)
    assert replays.claim(claim("a"), lease_s=60) is None
    replays.keep(claim("a"), KEPT, keep_s=100)
    clock.now_s += 99
    assert replays.claim(claim("b"), lease_s=60) == Found(fingerprint="f", kept=KEPT)
    clock.now_s += 1
    assert replays.claim(claim("b"), lease_s=60) is None


def test_a_claim_whose_holder_died_is_taken_over_and_stays_taken(ledger: Ledger) -> None:
    clock = Clock()
    replays = StoredReplays(ledger.engine, clock=clock)
    replays.claim(claim("dead"), lease_s=60)
    clock.now_s += 60
    assert replays.claim(claim("heir"), lease_s=60) is None
    replays.keep(claim("dead"), KEPT, keep_s=100)
    replays.release(claim("dead"))
    assert replays.claim(claim("third"), lease_s=60) == Found(fingerprint="f", kept=None)


def test_what_expired_is_deleted(ledger: Ledger, place: Place) -> None:
    clock = Clock()
    replays = StoredReplays(ledger.engine, clock=clock)
    for n in range(5):
        replays.claim(claim("a", f"id{n}"), lease_s=60)
    clock.now_s += 120
    replays.claim(claim("b", "another"), lease_s=60)
    assert place.sql("SELECT id FROM replays") == [("another",)]


def test_memory_forgets_what_expired_and_the_oldest_beyond_its_room() -> None:
    clock = Clock()
    memory = InMemory(clock)
    large_one = Kept(status=200, headers={}, body=b"x" * MOST_BYTES)

    async def main() -> None:
        for n in range(65):
            assert await memory.claim(claim("a", f"id{n}"), lease_s=60) is None
            await memory.keep(claim("a", f"id{n}"), large_one, keep_s=100)
        assert await memory.claim(claim("b", "id0"), lease_s=60) is None
        assert await memory.claim(claim("b", "id64"), lease_s=60) == Found(fingerprint="f", kept=large_one)
        clock.now_s += 100
        assert await memory.claim(claim("b", "id64"), lease_s=60) is None
        await memory.release(claim("a", "id64"))
        assert await memory.claim(claim("c", "id64"), lease_s=60) == Found(fingerprint="f", kept=None)
        await memory.release(claim("b", "id64"))
        assert await memory.claim(claim("c", "id64"), lease_s=60) is None

    asyncio.run(main())


def test_where_the_secret_cannot_be_had_nothing_is_promised(monkeypatch: pytest.MonkeyPatch, ledger: Ledger) -> None:
    monkeypatch.setenv("COREA_KEYS_SECRET", "short")
    with serving(recorder=ledger) as running:
        answer = post(running)
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "idempotency_unavailable"
        assert asked(running) == 0
        assert post(running, key=None).status_code == 200
