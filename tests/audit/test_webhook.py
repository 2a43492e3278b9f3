"""An alarm goes to one address, is tried again where that may help, and never says where it went in full."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from corea.audit.webhook import FIRST_PAUSE_S, TRIES, post

URL = "https://hooks.example/services/s3cret"


def posted(*answers: int | Exception, url: str = URL) -> tuple[bool, int, list[float]]:
    pauses: list[float] = []
    bodies: list[bytes] = []

    def send(url: str, body: bytes) -> int:
        bodies.append(body)
        answer = answers[min(len(bodies), len(answers)) - 1]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def sleep(pause_s: float) -> None:
        pauses.append(pause_s)

    taken = asyncio.run(post(url, {"id": "a"}, rng=random.Random(1), send=send, sleep=sleep))
    assert {json.loads(body)["id"] for body in bodies} == {"a"}
    return taken, len(bodies), pauses


def test_a_2xx_is_enough() -> None:
    assert posted(204) == (True, 1, [])


def test_what_may_pass_is_tried_again_with_pauses_that_grow_and_vary() -> None:
    taken, calls, pauses = posted(500, TimeoutError(), 429, 200)
    assert (taken, calls) == (True, TRIES)
    assert all(0 <= pause <= FIRST_PAUSE_S * 2**i for i, pause in enumerate(pauses))
    assert len(set(pauses)) == 3


@pytest.mark.parametrize("answer, calls", [(404, 1), (302, 1), (503, TRIES), (ConnectionRefusedError(), TRIES)])
def test_a_failure_is_logged_without_the_secret_and_nothing_is_raised(
    answer: int | Exception, calls: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR, "corea.audit"):
        taken, made, _ = posted(answer)
    assert (taken, made) == (False, calls)
    assert "could not be sent to hooks.example" in caplog.text
    assert "s3cret" not in caplog.text


@contextmanager
def server(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            answer(self)

        def log_message(self, *args: object) -> None:
            """Quiet."""

    with HTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.server_port}/hook"
        finally:
            listening.shutdown()
            thread.join()


def test_a_real_server_gets_json_and_a_redirect_is_not_followed() -> None:
    got: list[tuple[str, str | None, dict[str, str]]] = []

    def answer(request: BaseHTTPRequestHandler) -> None:
        body = json.loads(request.rfile.read(int(request.headers["content-length"])))
        got.append((request.path, request.headers["content-type"], body))
        request.send_response(200 if len(got) == 1 else 307)
        request.send_header("location", "/elsewhere")
        request.end_headers()

    with server(answer) as url:
        assert asyncio.run(post(url, {"text": "rings"}, rng=random.Random(1)))
        assert not asyncio.run(post(url, {"text": "again"}, rng=random.Random(1)))
    assert [one[:2] for one in got] == [("/hook", "application/json")] * 2
    assert [one[2]["text"] for one in got] == ["rings", "again"]
