"""Every secret is a canary, and it is searched for in everything that the gateway says, shows or keeps."""

from __future__ import annotations

import io
import json
import random
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from typer.testing import CliRunner

from corea.cli.app import app
from corea.config import parse
from corea.errors import CoreaError
from corea.gateway.auth import authorizer_of
from corea.gateway.keys import Pepper, create
from corea.gateway.logs import Format, logging_to, secrets_of
from corea.gateway.telemetry import Spans
from corea.ledger import Ledger
from corea.models.openai import OpenAIModel
from corea.models.scripted import ScriptedModel, Step
from corea.prices import FixedPrice
from corea.tier import Tier
from corea.types import Prompt
from faults.endpoint import Fault, Received, page, sends, served_from_a_thread, status
from faults.streaming import chunk, event, stream, whole
from gateway.running import serving

UPSTREAM, WRONG, QUERY, HEADER, PEPPER, DATABASE = (
    f"canary-{name}-0123456789abcdef0123456789"
    for name in ("upstream", "wrong", "query", "header", "pepper", "database")
)
MESSAGES = [{"role": "user", "content": "What is 6 × 7?"}]
TOOL = {"type": "function", "function": {"name": "multiply", "parameters": {"type": "object"}}}


def echoes(code: int, **fields: Any) -> Fault:
    """Says the key wherever there is room for it."""

    async def refuse(request: web.BaseRequest, received: Received) -> web.StreamResponse:
        key = received.key
        error = {"message": f"wrong: {key}", "type": key, "code": key, "param": key, **fields}
        return web.json_response(
            {"error": error, "detail": key}, status=code, headers={"x-key": key, "www-authenticate": key}
        )

    return refuse


def echoes_in_a_stream(*, first: bool) -> Fault:
    """An event that is an error, with the key in it."""

    async def send(request: web.BaseRequest, received: Received) -> web.StreamResponse:
        error = event({"error": {"message": f"wrong: {received.key}", "code": received.key}})
        parts = [error] if first else [event(chunk("Six ")), error]
        return await stream(parts)(request, received)

    return send


FAULTS: tuple[str | Fault, ...] = (
    *("ok", "status_401", "status_403", "status_404", "status_409", "status_429", "status_500", "moved"),
    *("not_http", "cut_body", "truncated_json", "garbage", "html_200", "html_502", "overflow_openai"),
    *(echoes(code) for code in (200, 400, 401, 403, 413, 422, 429, 500)),
    *(page(400), sends({"error": "x"}, 422), status(415)),
    *(whole(), echoes_in_a_stream(first=True), echoes_in_a_stream(first=False)),
)


#: Buffered, streamed, and both of what is relayed; each meets each fault.
KINDS: list[dict[str, Any]] = [{}, {"stream": True}, {"n": 2}, {"stream": True, "tools": [TOOL]}]


@dataclass
class Told:
    """All that was said, by where."""

    places: dict[str, str] = field(default_factory=dict)

    def add(self, place: str, *texts: object) -> None:
        self.places[place] = self.places.get(place, "") + "".join(map(str, texts)) + "\n"

    def answer(self, answer: httpx.Response) -> None:
        self.add("answers", answer.status_code, answer.headers, answer.text)

    def found(self, secrets: Mapping[str, str]) -> list[str]:
        return [f"{name} in {place}" for place, text in self.places.items() for name, s in secrets.items() if s in text]


def crashing(prompt: Prompt, index: int) -> Step:
    raise RuntimeError(f"headers={{'Authorization': 'Bearer {UPSTREAM}'}} {PEPPER} postgresql://me:{DATABASE}@db/x")


CONFIG = """
[[tiers]]
name = "large"
kind = "openai"
base_url = "{base_url}"
model = "m"
api_key_env = "UPSTREAM_KEY"
prices = {{ input = 1, output = 2 }}

[ledger]
url = "{ledger}"

[gateway]
virtual_keys = true
"""


@contextmanager
def watched(folder: Path, format: Format) -> Iterator[tuple[Told, str, str]]:
    """A gateway before an upstream that does everything wrong; all that it says; its address, and a key."""
    told, log, spans = Told(), io.StringIO(), InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(spans))
    url = f"sqlite:///{folder / 'ledger.db'}"
    with served_from_a_thread(*(fault for fault in FAULTS for _ in KINDS)) as endpoint, Ledger.open(url) as ledger:
        text = CONFIG.format(base_url=endpoint.base_url, ledger=url)
        (folder / "corea.toml").write_text(text)
        config = parse(text.replace(url, f"postgresql://me:{DATABASE}@db/x"), source="test")
        _, secret = create(ledger, Pepper.load(), name="a caller")
        model = OpenAIModel(
            "large",
            base_url=endpoint.base_url,
            model="m",
            api_key=UPSTREAM,
            api_key_env="UPSTREAM_KEY",
            max_retries=0,
            rng=random.Random(1),
        )
        price = FixedPrice.per_million(1, 2)
        tiers = (
            Tier(name="crashing", model=ScriptedModel("crashing", replies=crashing), threshold=0.5),
            Tier(name="large", model=model, price=price),
        )
        with logging_to(log, format, secrets=secrets_of(config)):
            authorizer = authorizer_of(config.gateway, ledger)
            with serving(*tiers, authorizer=authorizer, recorder=ledger, observer=Spans(provider, {})) as running:
                yield told, running.url, secret
    told.add("log", log.getvalue())
    told.add("spans", *(span.to_json() for span in spans.get_finished_spans()))
    for file in sorted(folder.rglob("*")):
        if file.is_file() and file.name != "corea.toml":
            told.add(f"file {file.name}", file.read_bytes().decode("latin-1"))


def ask_everything(told: Told, url: str, key: str) -> None:
    """Good and bad requests, each with secrets wherever a client may put them."""
    plain: dict[str, Any] = {"model": "large", "messages": MESSAGES}
    good, wrong = {"authorization": f"Bearer {key}"}, {"authorization": f"Bearer {WRONG}"}
    more = {"x-api-key": HEADER, "cookie": f"session={HEADER}", "proxy-authorization": HEADER, "api-key": HEADER}
    with httpx.Client(base_url=url, params={"api_key": QUERY}, headers=more, timeout=20) as client:
        for _ in FAULTS:
            for change in KINDS:
                told.answer(client.post("/v1/chat/completions", json={**plain, **change}, headers=good))
        told.answer(client.post("/v1/chat/completions", json={**plain, "model": "crashing"}, headers=good))
        told.answer(client.post("/v1/chat/completions", json={**plain, "model": "corea", "stream": True}, headers=good))
        told.answer(client.post("/v1/chat/completions", json=plain, headers=wrong))
        told.answer(client.post("/v1/chat/completions", content=b"{", headers=good))
        told.answer(client.post("/v1/embeddings", json={"model": "large", "input": "x"}, headers=good))
        for path in ("/metrics", "/openapi.json", "/v1/models", "/healthz", "/nowhere"):
            for headers in (good, wrong, {}):
                told.answer(client.get(path, headers=headers))


@pytest.mark.parametrize("format", ["json", "text"])
def test_no_secret_is_in_anything_that_is_said_or_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: Format
) -> None:
    monkeypatch.setenv("UPSTREAM_KEY", UPSTREAM)
    monkeypatch.setenv("COREA_KEYS_SECRET", PEPPER)
    with watched(tmp_path, format) as (told, url, key):
        ask_everything(told, url, key)
    told.add("commands", *commands(tmp_path / "corea.toml"))
    secrets = {"client": key[6:], "upstream": UPSTREAM, "wrong": WRONG, "query": QUERY, "header": HEADER}
    assert told.found({**secrets, "pepper": PEPPER, "database": DATABASE}) == []
    # It was all there: or nothing was looked at.
    assert {"answers", "log", "spans", "commands", "file ledger.db"} <= set(told.places)
    assert "internal_error" in told.places["answers"]
    assert "corea_requests_total" in told.places["answers"]
    assert "[secret]" in told.places["log"]
    assert "[key]" in told.places["file ledger.db"]
    assert told.places["log"].count("/v1/chat/completions") > len(FAULTS)


def commands(config: Path) -> Iterator[str]:
    """What the command line tells of all this."""
    runner = CliRunner()

    def say(*arguments: str) -> str:
        done = runner.invoke(app, [*arguments, "--config", str(config)])
        assert done.exit_code == 0, done.output
        return done.output

    traces = json.loads(say("trace", "list", "--limit", "1000", "--json"))
    assert len(traces) >= len(FAULTS) * len(KINDS)
    # One of each fault; what they show is all in the file.
    for trace in traces[:: len(KINDS) + 1]:
        yield say("trace", "show", trace["id"])
    yield say("trace", "show", traces[-1]["id"], "--json")
    for arguments in (["trace", "list"], ["keys", "list"], ["keys", "list", "--json"], ["config", "show"]):
        yield say(*arguments)
    yield say("config", "show", "--json")


@pytest.mark.parametrize("query", ["", f"?password={DATABASE}", f"?sslpassword={DATABASE}"])
@pytest.mark.parametrize(
    "arguments",
    [["config", "show"], ["config", "show", "--json"], ["trace", "list"], ["keys", "list"], ["serve", "--port", "0"]],
    ids=" ".join,
)
def test_the_databases_password_is_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], query: str
) -> None:
    monkeypatch.setenv("UPSTREAM_KEY", UPSTREAM)
    url = f"postgresql://me:{DATABASE}@127.0.0.1:9/x{query}" if not query else f"postgresql://me@127.0.0.1:9/x{query}"
    (tmp_path / "corea.toml").write_text(CONFIG.format(base_url="http://127.0.0.1:9/v1", ledger=url))
    done = CliRunner().invoke(app, [*arguments, "--config", str(tmp_path / "corea.toml")])
    raised = done.exception
    told = done.output if raised is None else done.output + "".join(traceback.format_exception(raised)) + repr(raised)
    assert DATABASE not in told
    assert UPSTREAM not in told
    if arguments[0] != "config":
        assert isinstance(raised, CoreaError)


@pytest.mark.parametrize("arguments", [["show"], ["show", "--json"]], ids=" ".join)
@pytest.mark.parametrize(
    "url,shown",
    [
        (f"http://host/v1?api-version=2&code={UPSTREAM}", "http://host/v1?***"),
        (f"http://host/v1#{UPSTREAM}", "http://host/v1"),
        (f"https://me:{UPSTREAM}@host:8000/v1", "https://***@host:8000/v1"),
        (f"https://{UPSTREAM}@host/v1?", "https://***@host/v1"),
        ("http://[::1]:8000/v1", "http://[::1]:8000/v1"),
    ],
)
def test_an_endpoint_is_shown_without_what_may_be_a_secret(
    tmp_path: Path, arguments: list[str], url: str, shown: str
) -> None:
    (tmp_path / "corea.toml").write_text(CONFIG.format(base_url=url, ledger="sqlite:///x.db"))
    told = CliRunner().invoke(app, ["config", *arguments, "--config", str(tmp_path / "corea.toml")]).output
    assert UPSTREAM not in told
    assert f'"{shown}"' in told


def test_the_configurations_secrets_are_known() -> None:
    url = f"postgresql://me:{DATABASE[:-1]}%40@db/x?sslpassword=another-one"
    config = parse(CONFIG.format(base_url="http://x/v1?api-key=a-third&api-version=2", ledger=url), source="test")
    assert secrets_of(config, {"UPSTREAM_KEY": UPSTREAM, "COREA_KEYS_SECRET": PEPPER}) == {
        *(UPSTREAM, PEPPER, "another-one", "a-third", f"{DATABASE[:-1]}%40", f"{DATABASE[:-1]}@")
    }
    assert DATABASE[:-1] not in repr(config)
    # A dummy is none: it would be replaced in every word that has it.
    assert secrets_of(config, {"UPSTREAM_KEY": "x"}) == secrets_of(config, {})
