"""OpenAI's own client for Node against the running gateway: nothing changes but ``baseURL``.

Skipped where Node or its packages cannot be had; an error instead where COREA_REQUIRE_NODE is set.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from corea.errors import RateLimited, UpstreamGarbage, UpstreamStatus
from corea.gateway.auth import OneKey
from corea.models.scripted import ScriptedModel, Written, scripted_reply
from faults.endpoint import TEXT, status
from faults.streaming import chunk, event, stream
from gateway.running import UNSURE, Running, large, serving, small
from gateway.upstream_like_openai import ARGUMENTS, CALL, EMBEDDING, TOOL, answer_in, relaying, schema

HERE = Path(__file__).parent / "node"
MESSAGES: Any = [{"role": "user", "content": "What is 6 × 7?"}]
ASKED: dict[str, Any] = {"model": "corea", "messages": MESSAGES}
CREATE = "chat.completions.create"
LIVE = scripted_reply("The answer is 42")


class Node:
    """The client's process; see ``node/client.mjs``."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._ids = count(1)
        self._outcomes: dict[int, dict[str, Any]] = {}

    def ask(self, running: Running, call: str, params: object = None, **more: Any) -> dict[str, Any]:
        return self.outcome(self.begin(running, call, params, **more))

    def begin(self, running: Running, call: str, params: object = None, **more: Any) -> int:
        id = next(self._ids)
        self._say({"id": id, "base_url": f"{running.url}/v1", "call": call, "params": params, **more})
        return id

    def abort(self, id: int) -> None:
        self._say({"abort": id})

    def outcome(self, id: int) -> dict[str, Any]:
        assert self._process.stdout is not None
        while id not in self._outcomes:
            line = self._process.stdout.readline()
            assert line, "the client's process ended"
            outcome = json.loads(line)
            self._outcomes[outcome["id"]] = outcome
        return self._outcomes.pop(id)

    def _say(self, message: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()


@pytest.fixture(scope="session")
def node() -> Iterator[Node]:
    problem = _install()
    if problem and os.environ.get("COREA_REQUIRE_NODE"):
        pytest.fail(problem)
    if problem:
        pytest.skip(problem)
    command = [shutil.which("node") or "node", "client.mjs"]
    with subprocess.Popen(command, cwd=HERE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Node(process)
        assert process.stdin is not None
        process.stdin.close()


def _install() -> str | None:
    """``npm ci``, once for each lock file; why it did not work."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        return "node and npm are not on the PATH; install Node.js"
    installed, lock = HERE / "node_modules" / ".package-lock.json", HERE / "package-lock.json"
    if installed.exists() and installed.stat().st_mtime >= lock.stat().st_mtime:
        return None
    try:
        subprocess.run(
            [npm, "ci", "--no-audit", "--no-fund"], cwd=HERE, check=True, capture_output=True, text=True, timeout=100
        )
    except subprocess.CalledProcessError as exc:
        return f"npm ci failed: {exc.stderr[-500:]}"
    except subprocess.TimeoutExpired:
        return "npm ci took longer than 100 s; run it in tests/gateway/node"
    return None


@pytest.fixture(scope="module")
def unsure() -> Iterator[Running]:
    with serving(small(UNSURE), large(LIVE)) as running:
        yield running


@pytest.fixture(scope="module")
def relayed() -> Iterator[Running]:
    with relaying() as (running, _):
        yield running


def written(pieces: list[dict[str, Any]]) -> str:
    return "".join(piece["choices"][0]["delta"].get("content") or "" for piece in pieces if piece["choices"])


# Text


def test_an_answer_comes_with_what_it_cost_and_why(node: Node, relayed: Running) -> None:
    outcome = node.ask(relayed, CREATE, ASKED)
    answer, headers = outcome["data"], outcome["headers"]
    assert answer["choices"][0]["message"]["content"] == "Let me think.\nAnswer: 42"
    assert answer["corea"]["trace_id"] == headers["x-corea-trace-id"] == relayed.trace.id
    assert (headers["x-corea-route"], headers["x-corea-deferred"]) == ("small", "false")
    assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] + answer["usage"]["completion_tokens"]


@pytest.mark.parametrize("include_usage", [False, True])
def test_a_stream_is_the_answer_in_pieces(node: Node, unsure: Running, include_usage: bool) -> None:
    options = {"stream_options": {"include_usage": True}} if include_usage else {}
    outcome = node.ask(unsure, CREATE, {**ASKED, "stream": True, **options})
    pieces = outcome["pieces"]
    assert written(pieces) == LIVE.text
    assert outcome["headers"]["x-corea-route"] == "large"
    finished = [piece for piece in pieces if piece["choices"]][-1]
    assert finished["choices"][0]["finish_reason"] == "stop"
    assert finished["corea"]["trace_id"] == unsure.trace.id
    assert [bool(piece.get("usage")) for piece in pieces] == [False] * (len(pieces) - 1) + [include_usage]


def test_the_streaming_helper_puts_the_answer_together(node: Node, unsure: Running) -> None:
    final = node.ask(unsure, "chat.completions.stream", ASKED)["final"]
    assert final["choices"][0]["message"]["content"] == LIVE.text


def test_responses_are_created_whole_and_streamed(node: Node, unsure: Running) -> None:
    asked = {"model": "corea", "input": "6 × 7?", "instructions": "Be brief."}
    whole = node.ask(unsure, "responses.create", asked)["data"]
    assert (whole["output_text"], whole["status"]) == (LIVE.text, "completed")
    streamed = node.ask(unsure, "responses.stream", asked)
    kinds = [piece["type"] for piece in streamed["pieces"]]
    assert (kinds[0], kinds[-1]) == ("response.created", "response.completed")
    assert [piece["sequence_number"] for piece in streamed["pieces"]] == list(range(len(kinds)))
    assert streamed["final"]["output_text"] == LIVE.text


def test_old_completions_work_whole_and_streamed(node: Node, unsure: Running) -> None:
    asked = {"model": "corea", "prompt": "6 × 7 ="}
    assert node.ask(unsure, "completions.create", asked)["data"]["choices"][0]["text"] == LIVE.text
    pieces = node.ask(unsure, "completions.create", {**asked, "stream": True})["pieces"]
    assert "".join(piece["choices"][0]["text"] for piece in pieces) == LIVE.text


def test_models_are_listed_and_retrieved(node: Node, unsure: Running) -> None:
    assert [model["id"] for model in node.ask(unsure, "models.list")["data"]] == ["corea", "small", "large"]
    assert node.ask(unsure, "models.retrieve", "large")["data"]["id"] == "large"


# What is handed on


def test_tools_are_called(node: Node, relayed: Running) -> None:
    outcome = node.ask(relayed, CREATE, {**ASKED, "tools": [TOOL]})
    choice = outcome["data"]["choices"][0]
    assert (choice["finish_reason"], choice["message"]["tool_calls"]) == ("tool_calls", [CALL])
    assert outcome["headers"]["x-corea-route"] == "passthrough:tools"


def test_streamed_tool_calls_are_put_together(node: Node, relayed: Running) -> None:
    final = node.ask(relayed, "chat.completions.stream", {**ASKED, "tools": [TOOL]})["final"]
    (call,) = final["choices"][0]["message"]["tool_calls"]
    assert (call["id"], call["function"]["name"], call["function"]["arguments"]) == ("call_1", "multiply", ARGUMENTS)


def test_the_loop_of_calls_and_results_comes_to_an_answer(node: Node, relayed: Running) -> None:
    outcome = node.ask(relayed, "chat.completions.runTools", {**ASKED, "tools": [TOOL]})
    assert outcome["final"] == TEXT
    assert [message["role"] for message in outcome["messages"]] == ["user", "assistant", "tool", "assistant"]
    assert outcome["messages"][2]["content"] == "42"


@pytest.mark.parametrize("call", ["chat.completions.parse", "chat.completions.stream"])
def test_structured_output_is_relayed(node: Node, relayed: Running, call: str) -> None:
    outcome = node.ask(relayed, call, {**ASKED, "response_format": schema()})
    answer = outcome.get("final") or outcome["data"]
    assert answer_in(answer["choices"][0]["message"]["content"]) == 42
    assert relayed.trace.metadata["passthrough"] == "response_format"


@pytest.mark.parametrize("form", [{}, {"encoding_format": "float"}], ids=["packed, the client's default", "floats"])
def test_embeddings_come_whichever_way_they_are_packed(node: Node, relayed: Running, form: dict[str, str]) -> None:
    answer = node.ask(relayed, "embeddings.create", {"model": "large", "input": "hello", **form})["data"]
    assert answer["data"][0]["embedding"] == EMBEDDING


# Errors, as the client's classes


def test_errors_have_their_class_code_and_param(node: Node) -> None:
    with serving(max_body_bytes=4000) as running:
        for change, kind, expected in (
            ({"model": "gpt-4"}, "NotFoundError", (404, "model_not_found", "model")),
            ({"temperature": 9}, "BadRequestError", (400, None, "temperature")),
            ({"tools": [TOOL]}, "BadRequestError", (400, "unsupported_parameter", "tools")),
            ({"user": "x" * 5000}, "APIError", (413, "request_too_large", None)),
        ):
            error = node.ask(running, CREATE, {**ASKED, **change})["error"]
            assert error["kind"] == kind
            assert (error["status"], error["code"], error["param"]) == expected
            assert error["type"] == "invalid_request_error"
            assert error["request_id"]


def test_a_wrong_key_is_an_authentication_error(node: Node) -> None:
    with serving(authorizer=OneKey("sk-right")) as running:
        error = node.ask(running, CREATE, ASKED, options={"apiKey": "sk-wrong"})["error"]
        assert (error["kind"], error["code"]) == ("AuthenticationError", "invalid_api_key")
        assert "data" in node.ask(running, CREATE, ASKED, options={"apiKey": "sk-right"})


@pytest.mark.parametrize("streamed", [False, True])
def test_the_client_tries_again_only_where_it_helps(node: Node, streamed: bool) -> None:
    for failure, calls in (
        (RateLimited("large: HTTP 429", status=429), 2),
        (UpstreamStatus("large: HTTP 500", status=500), 2),
        (UpstreamGarbage("large: HTML"), 1),
    ):
        last = large(failure, LIVE)
        with serving(small(UNSURE), last) as running:
            outcome = node.ask(running, CREATE, {**ASKED, "stream": streamed}, options={"maxRetries": 1})
            assert isinstance(last.model, ScriptedModel)
            assert last.model.calls == calls
            assert ("error" in outcome) is (calls == 1)


def test_a_busy_upstream_is_a_rate_limit_after_all_tries(node: Node) -> None:
    with relaying(status(429)) as (running, endpoint):
        error = node.ask(running, CREATE, {**ASKED, "tools": [TOOL]}, options={"maxRetries": 1})["error"]
        assert (error["kind"], error["code"]) == ("RateLimitError", "rate_limit_exceeded")
        assert len(endpoint.requests) == 2


def test_a_stream_that_breaks_is_an_error_never_silent(node: Node) -> None:
    broken = Written(reply=LIVE, error=UpstreamGarbage("large: the stream was cut off"))
    with serving(small(UNSURE), large(broken)) as running:
        error = node.ask(running, CREATE, {**ASKED, "stream": True})["error"]
        assert (error["kind"], error["code"]) == ("APIError", "upstream_garbage")
        assert "cut off" in error["message"]


# Clients who leave


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("tools", [[], [TOOL]], ids=["through the cascade", "relayed"])
def test_an_aborted_request_closes_the_upstream(node: Node, streamed: bool, tools: Any) -> None:
    asked = {"model": "large", "messages": MESSAGES, "tools": tools, "stream": streamed}
    with relaying(stream([event(chunk("Six "))], then="hang")) as (running, endpoint):
        request = node.begin(running, CREATE, asked)
        _until(lambda: bool(endpoint.requests))
        node.abort(request)
        outcome = node.outcome(request)
        # The client ends a stream that was aborted without an error.
        assert streamed or outcome["error"]["kind"] == "APIUserAbortError"
        _until(lambda: endpoint.disconnects == 1)
        assert running.trace.attempts[0].failure is not None
        assert running.trace.attempts[0].failure.kind == "Abandoned"


def test_a_stream_that_is_left_in_the_middle_closes_the_upstream(node: Node) -> None:
    with relaying(stream([event(chunk("Six ")), event(chunk("times "))], then="hang")) as (running, endpoint):
        outcome = node.ask(running, CREATE, {**ASKED, "model": "large", "stream": True}, leave_after=2)
        assert len(outcome["pieces"]) == 2
        _until(lambda: endpoint.disconnects == 1)
        assert running.trace.cost_nano_usd is None


def test_many_requests_at_once_are_all_answered(node: Node, unsure: Running) -> None:
    requests = [node.begin(unsure, CREATE, {**ASKED, "stream": number % 2 == 0}) for number in range(20)]
    assert ["error" in node.outcome(request) for request in requests] == [False] * 20


def _until(condition: Any, within_s: float = 5.0) -> None:
    ends_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < ends_s, "it did not come to that"
        time.sleep(0.005)
