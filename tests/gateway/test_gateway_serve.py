"""The process: it drains on SIGTERM, drops nobody, records everything, and will not stand open to the network."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from corea.ledger import get_trace, list_traces, reading

PROGRAM = textwrap.dedent(
    """
    import json, sys
    from corea import Cascade
    from corea.gateway.app import Gateway
    from corea.gateway.serve import serve
    from corea.gateway_config import GatewayConfig
    from corea.ledger import Ledger
    from corea.models.scripted import Hang, ScriptedModel, Written, scripted_reply
    from corea.tier import Tier

    settings = json.loads(sys.argv[2])
    reply = scripted_reply("one two three four five")
    step = Written(reply=reply, pause_s=0.1, error=Hang() if settings.pop("hang", False) else None)
    tier = Tier(name="large", model=ScriptedModel("m", replies=[step]))
    cascade = Cascade([tier], ledger=Ledger.open(sys.argv[1]))
    gateway = Gateway(cascade, GatewayConfig(port=0, **settings))
    serve(gateway, on_start=lambda url: print(url, flush=True))
    print("ended", flush=True)
    """
)
ASKED = {"model": "corea", "messages": [{"role": "user", "content": "?"}], "stream": True}


@contextmanager
def process(url: str, **settings: Any) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server that writes five words, a tenth of a second each; and its address."""
    command = [sys.executable, "-c", PROGRAM, url, json.dumps(settings)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        try:
            yield running, running.stdout.readline().strip()
        finally:
            running.kill()


def test_sigterm_lets_a_stream_finish_and_takes_no_new_connection(tmp_path: Path) -> None:
    ledger = f"sqlite:///{tmp_path / 'l.db'}"
    with process(ledger) as (running, address):
        with httpx.stream("POST", f"{address}/v1/chat/completions", json=ASKED, timeout=20) as answer:
            pieces = answer.iter_text()
            heard = next(pieces)
            running.send_signal(signal.SIGTERM)
            heard += "".join(pieces)
        assert heard.endswith("data: [DONE]\n\n")
        assert " five" in heard
        assert running.wait(20) == 0
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{address}/healthz", timeout=5)
        assert running.stdout is not None
        assert "ended" in running.stdout.read()
    with reading(ledger) as engine:
        (row,) = list_traces(engine)
        assert row.tier == "large"


def test_what_outlasts_the_drain_is_told_and_recorded(tmp_path: Path) -> None:
    ledger = f"sqlite:///{tmp_path / 'l.db'}"
    with process(ledger, hang=True, drain_s=1.0) as (running, address):
        with httpx.stream("POST", f"{address}/v1/chat/completions", json=ASKED, timeout=20) as answer:
            pieces = answer.iter_text()
            heard = next(pieces)
            running.send_signal(signal.SIGTERM)
            heard += "".join(pieces)
        assert '"code":"shutting_down"' in heard
        assert running.wait(20) == 0
    with reading(ledger) as engine:
        (row,) = list_traces(engine)
        trace = get_trace(engine, row.id)
    assert trace.attempts[0].failure is not None
    assert trace.attempts[0].failure.kind == "Abandoned"
    assert trace.attempts[0].text.startswith("one")
    assert trace.cost_nano_usd is None


def test_it_is_not_ready_while_load_balancers_are_given_notice(tmp_path: Path) -> None:
    with process(f"sqlite:///{tmp_path / 'l.db'}", drain_notice_s=60) as (running, address):
        assert httpx.get(f"{address}/readyz", timeout=5).status_code == 200
        running.send_signal(signal.SIGTERM)
        statuses = {httpx.get(f"{address}/readyz", timeout=5).status_code for _ in range(50)}
        assert 503 in statuses
        running.send_signal(signal.SIGTERM)
        assert running.wait(20) == 0


def test_an_open_gateway_refuses_to_face_the_network(tmp_path: Path) -> None:
    with process(f"sqlite:///{tmp_path / 'l.db'}", host="0.0.0.0") as (running, address):
        assert running.wait(20) == 1
        assert address == ""
        assert running.stderr is not None
        assert "gateway.host" in running.stderr.read()


def test_the_modules_of_the_library_load_no_web_framework() -> None:
    code = "import sys, corea.cli.app, corea.cascade; sys.exit(bool({'starlette', 'uvicorn'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60, env=os.environ).returncode == 0
