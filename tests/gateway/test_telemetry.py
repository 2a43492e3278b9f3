"""Spans: one a request, one an attempt, in the conventions' words, none of them a user's; off, nothing is imported."""

from __future__ import annotations

import asyncio
import http.server
import os
import random
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.trace import SpanKind, StatusCode

from corea import Cascade
from corea.confidence.p_true import PTrue
from corea.config import parse
from corea.errors import ConfigError, UpstreamStatus
from corea.gateway.app import Gateway
from corea.gateway.auth import OneKey
from corea.gateway.endpoints import Endpoint, endpoints_of
from corea.gateway.telemetry import Spans, from_environment
from corea.models.openai import OpenAIModel
from corea.models.scripted import Hang, ScriptedModel, Step, scripted_answer, scripted_reply
from corea.telemetry import carried
from corea.tier import Tier
from corea.types import Prompt, Reply
from faults.endpoint import completion, served_from_a_thread, status
from faults.streaming import whole
from gateway.running import UNSURE, Kept, large, serving, small

CANARY = "canary-0123456789abcdef"
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
PLAIN: dict[str, Any] = {"model": "corea", "messages": [{"role": "user", "content": f"What is 6 × 7? {CANARY}"}]}
ENDPOINTS = {"small": Endpoint(model="tiny", address="10.0.0.1", port=8000), "large": Endpoint(model="huge")}


class Seen(Spans):
    """Spans that are kept."""

    def __init__(self) -> None:
        provider = TracerProvider(shutdown_on_exit=False)
        self._kept = InMemorySpanExporter()
        provider.add_span_processor(SimpleSpanProcessor(self._kept))
        super().__init__(provider, ENDPOINTS)

    @property
    def all(self) -> Sequence[ReadableSpan]:
        return self._kept.get_finished_spans()

    def named(self, name: str) -> ReadableSpan:
        (span,) = [span for span in self.all if span.name == name]
        return span

    @property
    def text(self) -> str:
        return "".join(span.to_json() for span in self.all)


def of(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def parent_of(span: ReadableSpan) -> int | None:
    return None if span.parent is None else span.parent.span_id


def id_of(span: ReadableSpan) -> int:
    assert span.context is not None
    return int(span.context.span_id)


def ask(
    *tiers: Tier, seen: Seen, path: str = "/v1/chat/completions", authorizer: Any = None, **request: Any
) -> httpx.Response:
    ledger = Kept()
    gateway = Gateway(Cascade(tiers, ledger=ledger), authorizer=authorizer, feedback=ledger, observer=seen)

    async def main() -> httpx.Response:
        transport = httpx.ASGITransport(app=gateway)
        async with gateway.cascade, httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            return await client.request(request.pop("method", "POST"), path, **request)

    return asyncio.run(main())


def relaying(base_url: str) -> Tier:
    model = OpenAIModel("large", base_url=base_url, model="huge", api_key=CANARY, max_retries=0, rng=random.Random(1))
    return Tier(name="large", model=model)


def test_a_deferred_question_is_a_server_span_over_a_client_span_for_each_attempt() -> None:
    seen = Seen()
    answer = ask(small(UNSURE), large(), seen=seen, json={**PLAIN, "temperature": 0.5, "max_tokens": 9})
    server, first, second = seen.named("POST /v1/chat/completions"), seen.named("chat tiny"), seen.named("chat huge")
    assert (server.kind, first.kind, second.kind) == (SpanKind.SERVER, SpanKind.CLIENT, SpanKind.CLIENT)
    assert parent_of(server) is None
    assert parent_of(first) == parent_of(second) == id_of(server)
    told = of(server)
    assert told["http.request.method"] == "POST"
    assert told["http.route"] == "/v1/chat/completions"
    assert told["http.response.status_code"] == 200
    assert told["corea.request_id"] == answer.headers["x-request-id"]
    assert told["corea.trace_id"] == answer.headers["x-corea-trace-id"]
    assert (told["corea.tier"], told["corea.deferred"], told["corea.model"]) == ("large", True, "corea")
    assert f"{told['corea.cost_usd']:.9f}".rstrip("0") == answer.headers["x-corea-cost-usd"].rstrip("0")
    assert of(first) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "tiny",
        "gen_ai.request.max_tokens": 9,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.response.model": "scripted",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 20,
        "gen_ai.usage.cache_read.input_tokens": 0,
        "gen_ai.usage.output_tokens": 8,
        "gen_ai.usage.reasoning.output_tokens": 0,
        "server.address": "10.0.0.1",
        "server.port": 8000,
        "corea.tier": "small",
        "corea.purpose": "answer",
        "corea.decision": "defer",
        "corea.reason": "below_threshold",
        "corea.confidence": 0.15,
        "corea.threshold": 0.5,
        "corea.cost_usd": 3.6e-05,
    }
    assert (of(second)["corea.decision"], of(second)["corea.reason"]) == ("keep", "last_tier")
    assert all(span.status.status_code is StatusCode.UNSET for span in seen.all)


@pytest.mark.parametrize("stream", [False, True])
def test_attempts_follow_one_another_within_the_request(stream: bool) -> None:
    seen = Seen()
    assert ask(small(UNSURE), large(), seen=seen, json={**PLAIN, "stream": stream}).status_code == 200
    server, first, second = seen.named("POST /v1/chat/completions"), seen.named("chat tiny"), seen.named("chat huge")
    times = [server.start_time, first.start_time, first.end_time, second.start_time, second.end_time, server.end_time]
    assert times == sorted(times, key=lambda time: time or 0)
    assert of(second).get("gen_ai.request.stream", False) is stream
    assert ("corea.time_to_first_token_s" in of(server)) is stream


def test_a_call_that_asks_how_sure_the_model_is_has_a_span_of_its_own() -> None:
    def script(prompt: Prompt, index: int) -> Step:
        return scripted_answer("42") if index == 0 else scripted_reply("True", distribution={"True": 0.9, "False": 0.1})

    seen = Seen()
    tier = Tier(name="small", model=ScriptedModel("m", replies=script), estimator=PTrue(), threshold=0.5)
    assert ask(tier, large(), seen=seen, json=PLAIN).status_code == 200
    question, answer = sorted((s for s in seen.all if s.name == "chat tiny"), key=lambda s: s.end_time or 0)
    assert (of(question)["corea.purpose"], of(answer)["corea.purpose"]) == ("confidence", "answer")
    assert parent_of(question) == id_of(answer)
    assert of(question)["gen_ai.request.max_tokens"] == 1
    assert of(question)["gen_ai.usage.output_tokens"] == 1
    assert of(answer)["corea.confidence"] == pytest.approx(0.9)


def test_the_clients_trace_goes_on() -> None:
    seen = Seen()
    ask(small(), large(), seen=seen, json=PLAIN, headers={"traceparent": PARENT})
    assert {f"{span.context.trace_id:032x}" for span in seen.all if span.context} == {PARENT[3:35]}
    assert f"{parent_of(seen.named('POST /v1/chat/completions')):016x}" == PARENT[36:52]


@pytest.mark.parametrize("parent", ["", "nonsense", "00-0-0-01", "\x00", "ff" + PARENT[2:], "0" * 10_000])
def test_a_traceparent_that_is_none_begins_a_new_trace(parent: str) -> None:
    seen = Seen()
    ask(small(), large(), seen=seen, json=PLAIN, headers={"traceparent": parent.encode()})
    assert parent_of(seen.named("POST /v1/chat/completions")) is None


class Carrying:
    """A model that notes what its calls would carry."""

    name = "carrying"

    def __init__(self) -> None:
        self.carried: list[dict[str, str]] = []

    async def complete(self, prompt: Prompt, *, timeout_s: float | None = None) -> Reply:
        self.carried.append(dict(carried()))
        return scripted_answer("43")

    async def aclose(self) -> None:
        """Nothing to close."""


def test_a_call_carries_its_own_spans_context() -> None:
    seen, model = Seen(), Carrying()
    ask(small(UNSURE), Tier(name="large", model=model), seen=seen, json=PLAIN, headers={"traceparent": PARENT})
    assert model.carried == [{"traceparent": f"{PARENT[:36]}{id_of(seen.named('chat huge')):016x}-01"}]


def test_a_trace_that_is_not_sampled_is_carried_as_such() -> None:
    seen, model = Seen(), Carrying()
    parent = PARENT[:-2] + "00"
    ask(Tier(name="large", model=model), seen=seen, json=PLAIN, headers={"traceparent": parent, "tracestate": "a=b"})
    assert seen.all == ()
    (headers,) = model.carried
    assert headers["traceparent"].startswith(parent[:36])
    assert headers["traceparent"].endswith("-00")
    assert headers["tracestate"] == "a=b"


def test_nothing_is_carried_where_nobody_traces() -> None:
    model = Carrying()
    with serving(Tier(name="large", model=model)) as running:
        httpx.post(f"{running.url}/v1/chat/completions", json=PLAIN, headers={"traceparent": PARENT})
    assert model.carried == [{}]


@pytest.mark.parametrize("extra", [{}, {"stream": True}, {"n": 2}], ids=["whole", "streamed", "relayed"])
def test_the_upstream_is_told_which_span_called_it(extra: dict[str, Any]) -> None:
    seen = Seen()
    with served_from_a_thread(whole() if "stream" in extra else "ok") as endpoint:
        ask(relaying(endpoint.base_url), seen=seen, json={**PLAIN, **extra}, headers={"traceparent": PARENT})
        (received,) = endpoint.requests
    assert received.headers["traceparent"] == f"{PARENT[:36]}{id_of(seen.named('chat huge')):016x}-01"


@pytest.mark.parametrize("path,operation", [("chat/completions", "chat"), ("embeddings", "embeddings")])
def test_what_is_relayed_is_a_client_span_too(path: str, operation: str) -> None:
    seen = Seen()
    body = {**PLAIN, "n": 2} if operation == "chat" else {"model": "large", "input": CANARY}
    usage = {"prompt_tokens": 3, "completion_tokens": 0, "total_tokens": 3}
    vectors = {"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}], "usage": usage}
    with served_from_a_thread("ok", payload=completion() if operation == "chat" else vectors) as endpoint:
        assert ask(relaying(endpoint.base_url), seen=seen, path=f"/v1/{path}", json=body).status_code == 200
    server, call = seen.named(f"POST /v1/{path}"), seen.named(f"{operation} huge")
    assert parent_of(call) == id_of(server)
    assert of(call)["gen_ai.operation.name"] == operation
    assert of(call)["gen_ai.usage.input_tokens"] == (25 if operation == "chat" else 3)
    assert of(server)["corea.passthrough"] is True


@pytest.mark.parametrize("extra,kind", [({}, "Unauthorized"), ({"n": 2}, "Unauthorized")])
def test_a_failure_is_told_by_its_kind_and_not_in_its_words(extra: dict[str, Any], kind: str) -> None:
    seen = Seen()
    with served_from_a_thread(status(401)) as endpoint:
        answer = ask(relaying(endpoint.base_url), seen=seen, json={**PLAIN, **extra})
    assert answer.status_code == 502
    server, call = seen.named("POST /v1/chat/completions"), seen.named("chat huge")
    assert of(call)["error.type"] == kind
    assert of(call)["gen_ai.response.finish_reasons"] == ("error",)
    assert of(server)["error.type"] == "upstream_unauthorized"
    assert {call.status.status_code, server.status.status_code} == {StatusCode.ERROR}
    assert (call.status.description, server.status.description) == (None, None)
    assert "refused" not in seen.text


def test_a_fault_of_the_callers_is_no_error_of_ours() -> None:
    seen = Seen()
    ask(small(), seen=seen, json={"model": CANARY, "messages": []})
    ask(small(), seen=seen, path=f"/{CANARY}", method="BREW")
    assert [span.name for span in seen.all] == ["POST /v1/chat/completions", "HTTP"]
    assert [of(span)["http.response.status_code"] for span in seen.all] == [400, 404]
    assert [span.status.status_code for span in seen.all] == [StatusCode.UNSET] * 2


def test_a_client_who_leaves_ends_both_spans() -> None:
    seen = Seen()
    with serving(large(Hang()), observer=seen) as running:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{running.url}/v1/chat/completions", json=PLAIN, timeout=0.5)
        assert running.trace.attempts[0].failure is not None
    call, server = seen.named("chat huge"), seen.named("POST /v1/chat/completions")
    assert of(call)["error.type"] == "Abandoned"
    assert "http.response.status_code" not in of(server)
    assert of(server)["corea.trace_id"] == running.trace.id


def test_no_word_of_a_user_a_model_or_a_key_is_in_a_span() -> None:
    seen = Seen()
    said = scripted_answer(CANARY, reasoning=CANARY)
    tiers = small(said), large(said, UpstreamStatus(CANARY, status=500))
    headers = {"authorization": f"Bearer {CANARY}", "x-api-key": CANARY, "cookie": CANARY, "baggage": f"k={CANARY}"}
    body = {**PLAIN, "stop": [CANARY], "user": CANARY, "metadata": {CANARY: CANARY}}
    for change in ({}, {"stream": True}, {"model": "large"}, {"model": CANARY}, {CANARY: 1}, {"model": "large"}):
        ask(
            *tiers,
            seen=seen,
            json={**body, **change},
            headers=headers,
            params={"key": CANARY},
            authorizer=OneKey(CANARY),
        )
    ask(*tiers, seen=seen, path=f"/v1/models/{CANARY}", method="GET", headers=headers, authorizer=OneKey(CANARY))
    assert len(seen.all) >= 11
    assert CANARY not in seen.text


def test_probes_are_no_spans() -> None:
    seen = Seen()
    for path in ("/healthz", "/readyz", "/metrics"):
        ask(small(), seen=seen, path=path, method="GET")
    assert seen.all == ()


def test_every_name_of_genais_is_one_of_the_conventions() -> None:
    known = {value for name, value in vars(gen_ai_attributes).items() if name.startswith("GEN_AI_")}
    seen = Seen()
    body = {**PLAIN, "top_p": 0.5, "seed": 1, "presence_penalty": 1, "frequency_penalty": 1, "stream": True}
    ask(small(UNSURE), large(), seen=seen, json=body)
    used = {name for span in seen.all for name in of(span) if name.startswith("gen_ai.")}
    assert len(used) > 12
    assert used <= known


# From the configuration


def test_endpoints_are_named_as_the_conventions_name_them() -> None:
    text = """
        [[tiers]]
        name = "a"
        kind = "embedded"
        model = "/models/tiny.gguf"
        threshold = 0.5
        [[tiers]]
        name = "b"
        kind = "openai"
        model = "qwen"
        base_url = "http://10.0.0.7:8000/v1?key=secret"
        threshold = 0.5
        [[tiers]]
        name = "c"
        kind = "provider"
        provider = "mistral"
        model = "m"
        threshold = 0.5
        [[tiers]]
        name = "d"
        kind = "openai"
        model = "gpt"
        base_url = "https://mine.openai.azure.com/v1"
    """
    found = endpoints_of(parse(text, source="test"))
    assert found == {
        "a": Endpoint(provider="llama.cpp", model="tiny.gguf"),
        "b": Endpoint(provider="openai", model="qwen", address="10.0.0.7", port=8000),
        "c": Endpoint(provider="mistral_ai", model="m"),
        "d": Endpoint(provider="azure.ai.openai", model="gpt", address="mine.openai.azure.com", port=443),
    }


class Collector(http.server.BaseHTTPRequestHandler):
    """Takes OTLP over HTTP."""

    received: list[tuple[str, ExportTraceServiceRequest]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.received.append((self.path, ExportTraceServiceRequest.FromString(body)))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Says nothing."""


@contextmanager
def collecting() -> Iterator[tuple[str, list[tuple[str, ExportTraceServiceRequest]]]]:
    received: list[tuple[str, ExportTraceServiceRequest]] = []
    handler = type("OneCollector", (Collector,), {"received": received})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", received
        server.shutdown()
        thread.join(10)


def test_spans_reach_a_collector_before_the_gateway_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    with collecting() as (url, received):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
        with serving(small(UNSURE), large(), otel=True) as running:
            answer = httpx.post(f"{running.url}/v1/chat/completions", json=PLAIN)
    assert {path for path, _ in received} == {"/v1/traces"}
    resources = [resource for _, request in received for resource in request.resource_spans]
    named = {pair.key: pair.value.string_value for pair in resources[0].resource.attributes}
    assert (named["service.name"], named["deployment.environment.name"]) == ("corea", "test")
    spans = [span for resource in resources for scope in resource.scope_spans for span in scope.spans]
    assert sorted(span.name for span in spans) == ["POST /v1/chat/completions", "chat large", "chat small"]
    (server,) = [span for span in spans if span.name.startswith("POST")]
    told = {pair.key: pair.value for pair in server.attributes}
    assert told["corea.request_id"].string_value == answer.headers["x-request-id"]


def test_a_collector_that_is_down_does_not_hold_up_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    with serving(small(), otel=True) as running:
        assert httpx.post(f"{running.url}/v1/chat/completions", json=PLAIN).status_code == 200


@pytest.mark.parametrize(
    "variable,value", [("OTEL_TRACES_EXPORTER", "zipkin"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]
)
def test_an_exporter_that_we_do_not_have_says_which_there_are(variable: str, value: str) -> None:
    with pytest.raises(ConfigError, match="set OTEL_TRACES_EXPORTER to otlp, console or none"):
        from_environment({}, {variable: value})


def test_the_service_may_have_another_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in (("OTEL_SERVICE_NAME", "mine"), ("OTEL_RESOURCE_ATTRIBUTES", "service.name=mine")):
        monkeypatch.setenv(variable, value)
        spans = from_environment({}, {"OTEL_TRACES_EXPORTER": "none"})
        assert spans._provider.resource.attributes["service.name"] == "mine"
        monkeypatch.delenv(variable)


def in_a_process(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ,
        check=False,
    )


def test_off_nothing_of_it_is_imported() -> None:
    done = in_a_process(
        """
        import sys
        from corea import Cascade
        from corea.gateway.app import Gateway
        from corea.models.scripted import ScriptedModel, scripted_reply
        from corea.tier import Tier
        Gateway(Cascade([Tier(name="t", model=ScriptedModel("m", replies=[scripted_reply("x")]))]))
        sys.exit(any(name.partition(".")[0] == "opentelemetry" for name in sys.modules))
        """
    )
    assert done.returncode == 0, done.stderr


def test_without_the_extra_it_says_what_to_install() -> None:
    done = in_a_process(
        """
        import sys
        sys.modules["opentelemetry"] = None
        from corea.gateway.served import observer_of
        from corea.gateway_config import GatewayConfig
        observer_of(GatewayConfig(otel=True))
        """
    )
    assert "ExtraMissing: opentelemetry is not installed; run: pip install 'corea[serve,otel]'" in done.stderr
