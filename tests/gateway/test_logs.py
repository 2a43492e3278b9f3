"""A line for each request and each trouble, as JSON or for a terminal; nothing that a client writes can forge one."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import re
import signal
import subprocess
import sys
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corea import Cascade
from corea.errors import LedgerError
from corea.gateway.app import Gateway
from corea.gateway.auth import Authorizer, OneKey
from corea.gateway.logs import Format, logging_to
from corea.models.scripted import ScriptedModel, Step
from corea.tier import Tier
from corea.types import Prompt, Trace
from gateway.running import UNSURE, Kept, large, serving, small

PLAIN: dict[str, Any] = {"model": "corea", "messages": [{"role": "user", "content": "What is 6 × 7?"}]}
ODD = st.text(max_size=30) | st.sampled_from(
    [
        "a\nb",
        "a\r\nb",
        "\x1b[31m",
        "a\u2028b",
        "\x85",
        "\x9b1A",
        '","level":"error',
        "{}\n{}",
        "\ud800",
        "\u202e",
        "\x7f",
    ]
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def said(format: Format, *tiers: Tier, authorizer: Authorizer | None = None, ledger: Any = None, **asked: Any) -> str:
    """What is logged while one request is answered."""
    ledger = ledger or Kept()
    cascade = Cascade(tiers or (small(UNSURE), large()), ledger=ledger)
    gateway = Gateway(cascade, authorizer=authorizer, feedback=ledger)
    request = {"method": "POST", "url": "/v1/chat/completions", "json": PLAIN, **asked}

    async def main() -> httpx.Response:
        transport = httpx.ASGITransport(app=gateway)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            return await client.request(**request)

    stream = io.StringIO()
    with logging_to(stream, format):
        answer = asyncio.run(main())
    return stream.getvalue().replace(answer.headers["x-request-id"], "REQUEST")


def test_an_empty_question_is_no_trouble_of_the_gateways() -> None:
    # Its client is told. The one line is that of the request.
    (line,) = map(json.loads, said("json", json={**PLAIN, "messages": [{"role": "user", "content": " "}]}).splitlines())
    assert (line["level"], line["logger"], line["status"]) == ("info", "corea.access", 400)


def test_a_request_is_one_json_object() -> None:
    (line,) = map(
        json.loads, said("json", authorizer=OneKey("k-1"), headers={"authorization": "Bearer k-1"}).splitlines()
    )
    assert set(line) == {
        *("time", "level", "logger", "message", "request_id", "method", "route", "status", "duration_s", "key"),
        *("trace_id", "tier", "deferred", "cost_usd"),
    }
    assert datetime.now(UTC) - datetime.fromisoformat(line["time"]) < timedelta(minutes=1)
    assert line["time"].endswith("Z")
    assert (line["level"], line["logger"]) == ("info", "corea.access")
    assert (line["message"], line["status"], line["key"]) == ("POST /v1/chat/completions", 200, "key")
    assert (line["tier"], line["deferred"], line["request_id"]) == ("large", True, "REQUEST")
    assert line["cost_usd"] == pytest.approx(0.000036 + 0.0003, abs=0.0002)
    assert 0 < line["duration_s"] < 60


def test_a_refusal_is_one_too() -> None:
    (line,) = map(json.loads, said("json", url="/v1/models/nobody", method="GET").splitlines())
    assert (line["route"], line["status"], line["error"]) == ("/v1/models/{model:path}", 404, "model_not_found")
    assert "tier" not in line


def test_a_line_for_a_terminal_says_the_same() -> None:
    line = said("text").rstrip("\n")
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO    POST /v1/chat/completions  request_id=REQUEST  status=200  "
        r"duration_s=0\.\d+  method=POST  route=/v1/chat/completions  key=local  trace_id=\w{24}  tier=large  "
        r"deferred=true  cost_usd=0\.\d+",
        line,
    )


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
def test_a_probe_that_is_well_says_nothing(path: str) -> None:
    assert said("json", url=path, method="GET") == ""
    assert json.loads(said("json", url=path, method="PUT"))["status"] == 405


def broken(prompt: Prompt, index: int) -> Step:
    raise RuntimeError("line one\nline two")


def test_a_fault_of_ours_has_its_traceback_in_one_field() -> None:
    tier = Tier(name="small", model=ScriptedModel("m", replies=broken))
    error, access = map(json.loads, said("json", tier).splitlines())
    assert (error["level"], error["logger"], error["request_id"]) == ("error", "corea.gateway", "REQUEST")
    assert error["exception"].startswith("Traceback")
    assert error["exception"].endswith("line one\nline two")
    assert (access["status"], access["error"]) == (500, "internal_error")


def test_a_traceback_on_a_terminal_is_set_in() -> None:
    first, *rest, last = said("text", Tier(name="small", model=ScriptedModel("m", replies=broken))).splitlines()
    assert " ERROR   REQUEST: /v1/chat/completions failed  request_id=REQUEST" in first
    assert rest
    assert all(line.startswith("    | ") for line in rest)
    assert " status=500 " in last


def test_a_warning_says_which_request_it_is_about() -> None:
    class Full(Kept):
        async def write(self, trace: Trace) -> None:
            raise LedgerError("the disk is full; free some space")

    warning, access = map(json.loads, said("json", ledger=Full()).splitlines())
    assert (warning["level"], warning["request_id"]) == ("warning", "REQUEST")
    assert "the disk is full" in warning["message"]
    assert access["error"] == "ledger_unavailable"


def test_requests_at_once_do_not_mix() -> None:
    class Noting(Kept):
        async def write(self, trace: Trace) -> None:
            logging.getLogger("corea.test").warning("%s", trace.request.id)
            await asyncio.sleep(0)

    gateway = Gateway(Cascade((small(), large()), ledger=Noting()))

    async def main() -> None:
        transport = httpx.ASGITransport(app=gateway)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            await asyncio.gather(*(client.post("/v1/chat/completions", json=PLAIN) for _ in range(20)))

    stream = io.StringIO()
    with logging_to(stream, "json"):
        asyncio.run(main())
    noted = [line for line in map(json.loads, stream.getvalue().splitlines()) if line["logger"] == "corea.test"]
    assert len({line["request_id"] for line in noted}) == 20
    assert all(line["request_id"] in line["message"] for line in noted)


@settings(max_examples=60, deadline=None)
@given(odd=ODD, format=st.sampled_from(["json", "text"]))
def test_nothing_that_a_client_sends_forges_a_line(odd: str, format: Format) -> None:
    gateway = Gateway(Cascade((small(), large())))
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> dict[str, Any]:
        body = json.dumps({**PLAIN, "model": odd, odd: odd}).encode()
        return {"type": "http.request", "body": body, "more_body": False}

    async def main() -> None:
        # No server hands on half a surrogate pair outside of a body.
        whole = odd.encode(errors="replace").decode()
        for path in (f"/{whole}", "/v1/chat/completions"):
            headers = [(b"authorization", whole.encode()), (b"x-request-id", b"forged")]
            scope = {"type": "http", "method": whole or "GET", "path": path, "headers": headers, "query_string": b"k=v"}
            await gateway(scope, receive, send)
            await gateway({**scope, "method": "POST"}, receive, send)

    stream = io.StringIO()
    with logging_to(stream, format):
        asyncio.run(main())
        logging.getLogger("corea.gateway").warning("said %s", odd)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 5
    assert stream.getvalue().count("\n") == 5
    assert all(line.isprintable() for line in lines)
    if format == "json":
        assert all(line.isascii() for line in lines)
        assert all(json.loads(line)["level"] in ("info", "warning") for line in lines)


@settings(max_examples=100, deadline=None)
@given(odd=ODD)
def test_an_exceptions_words_forge_no_line_either(odd: str) -> None:
    for format in ("json", "text"):
        stream = io.StringIO()
        with logging_to(stream, format):
            try:
                raise RuntimeError(odd)
            except RuntimeError:
                logging.getLogger("corea.gateway").exception("failed")
        first, *rest = stream.getvalue().splitlines()
        assert all(line.isprintable() for line in (first, *rest))
        assert all(line.startswith("    | ") for line in rest)
        assert (not rest) is (format == "json")


def test_only_levels_are_coloured_and_only_on_a_terminal() -> None:
    for stream, colours in ((Terminal(), 2), (io.StringIO(), 0)):
        with logging_to(stream, "text"):
            logging.getLogger("corea.gateway").warning("look here")
        assert stream.getvalue().count("\x1b") == colours


def test_others_warnings_are_lines_and_afterwards_all_is_as_before() -> None:
    root, before = logging.getLogger(), logging.getLogger().handlers[:]
    stream = io.StringIO()
    with logging_to(stream, "json"):
        logging.getLogger("aiohttp").info("nobody wants to know")
        logging.getLogger("aiohttp").warning("look here")
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            logging.captureWarnings(True)
            warnings.warn("old", DeprecationWarning, stacklevel=1)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["logger"] for line in lines][:1] == ["aiohttp"]
    assert root.handlers == before
    assert logging.getLogger("corea").level in (logging.NOTSET, logging.WARNING)


CONFIG = """
[[tiers]]
name = "large"
kind = "openai"
base_url = "http://127.0.0.1:9/v1"
model = "m"
max_retries = 0

[gateway]
port = 0
log_format = "{format}"
"""


@pytest.mark.parametrize("configured,option", [("json", []), ("text", ["--log-format", "json"])])
def test_as_json_every_line_of_the_process_is_one(tmp_path: Path, configured: str, option: list[str]) -> None:
    (tmp_path / "corea.toml").write_text(CONFIG.format(format=configured))
    command = [sys.executable, "-m", "corea", "serve", "-c", str(tmp_path / "corea.toml"), *option]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ) as running:
        assert running.stderr is not None
        lines: list[str] = []
        for line in running.stderr:
            lines.append(line)
            if "listening on" in line:
                (url,) = re.findall(r"http://[\d.:]+", json.loads(line)["message"])
                assert httpx.post(f"{url}/v1/chat/completions", json=PLAIN, timeout=20).status_code == 502
                running.send_signal(signal.SIGTERM)
        assert running.wait(20) == 0
    told = [json.loads(line) for line in lines]
    assert {"uvicorn.error", "corea.access", "corea.gateway"} <= {line["logger"] for line in told}
    (access,) = [line for line in told if line["logger"] == "corea.access"]
    assert access["error"] == "upstream_unreachable"
    (warning,) = [line for line in told if line["level"] == "warning" and "request_id" in line]
    assert warning["request_id"] == access["request_id"]


def test_without_any_set_up_requests_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    with serving() as running:
        httpx.post(f"{running.url}/v1/chat/completions", json=PLAIN)
    assert caplog.text == ""
