"""Every route × every method × everybody who is not let in; and nobody chooses where a question goes."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.routing import Route

from corea.gateway import keys
from corea.gateway.app import OPEN_PATHS
from corea.gateway.keys import Pepper
from corea.gateway.virtual_keys import VirtualKeys
from corea.ledger import Ledger
from corea.ledger.keys import revoke
from faults.endpoint import FaultyEndpoint, served_from_a_thread
from gateway.running import Running, serving
from gateway.upstream_like_openai import TOOL, relaying

PEPPER = Pepper(b"p" * 32)
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE")
MESSAGES: Any = [{"role": "user", "content": "What is 6 × 7?"}]
#: Those that name a model; a key without that model gets 403 from them.
ASKING: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"model": "large", "messages": MESSAGES},
    "/v1/completions": {"model": "large", "prompt": "?"},
    "/v1/responses": {"model": "large", "input": "?"},
    "/v1/embeddings": {"model": "large", "input": "?"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Locked:
    """A gateway with keys, and a key that is for the small tier only."""

    running: Running
    client: httpx.Client
    revoked: str
    small_only: str
    good: str

    @property
    def paths(self) -> list[str]:
        return [
            route.path.replace("{model:path}", "large")
            for route in self.running.gateway.routes
            if isinstance(route, Route)
        ]


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Locked]:
    url = f"sqlite:///{tmp_path_factory.mktemp('keys') / 'ledger.db'}"
    with Ledger.open(url) as ledger, serving(authorizer=VirtualKeys(ledger, PEPPER), recorder=ledger) as running:
        revoked, revoked_secret = keys.create(ledger, PEPPER, name="ann")
        revoke(ledger, revoked.id, at_unix_s=time.time())
        with httpx.Client(base_url=running.url) as client:
            yield Locked(
                running=running,
                client=client,
                revoked=revoked_secret,
                small_only=keys.create(ledger, PEPPER, name="bob", profiles=("small",))[1],
                good=keys.create(ledger, PEPPER, name="eve")[1],
            )


def test_the_walk_has_every_route(locked: Locked) -> None:
    assert len(locked.paths) >= 11
    assert set(locked.paths) >= {*ASKING, *OPEN_PATHS, "/v1/models/large", "/metrics", "/openapi.json"}


@pytest.mark.parametrize("who", ["nobody", "wrong", "revoked", "other scheme", "in the query", "as x-api-key", "empty"])
def test_whoever_has_no_good_key_gets_nothing_from_any_route_by_any_method(locked: Locked, who: str) -> None:
    headers = {
        "wrong": {"authorization": "Bearer sk-corea-wrong"},
        "revoked": {"authorization": f"Bearer {locked.revoked}"},
        "other scheme": {"authorization": f"Basic {locked.good}"},
        "as x-api-key": {"x-api-key": locked.good},
        "empty": {"authorization": "Bearer"},
    }.get(who, {})
    query = {"api_key": locked.good, "authorization": f"Bearer {locked.good}"} if who == "in the query" else {}
    paths = [
        *locked.paths,
        "/",
        "/v1",
        "/docs",
        "/v1/chat/completions/",
        "//v1/models",
        "/healthz/../metrics",
        "/HEALTHZ",
    ]
    for path, method in product(paths, METHODS):
        answer = locked.client.request(method, path, headers=headers, params=query, json=ASKING.get(path, {}))
        if path in OPEN_PATHS:
            assert answer.status_code == (200 if method == "GET" else 405), (method, path)
            continue
        assert answer.status_code == 401, (method, path)
        assert method == "HEAD" or answer.json()["error"]["code"] in ("missing_api_key", "invalid_api_key")
        assert locked.good not in answer.text
    assert locked.running.ledger.traces == []


def test_a_key_gets_its_own_models_only_from_any_route(locked: Locked) -> None:
    headers = {"authorization": f"Bearer {locked.small_only}"}
    for path, body in ASKING.items():
        for model in ("large", "corea"):
            answer = locked.client.post(path, headers=headers, json={**body, "model": model})
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "model_not_allowed"), path
    for model, status in (("large", 403), ("corea", 403), ("small", 200), ("gone", 404)):
        assert locked.client.get(f"/v1/models/{model}", headers=headers).status_code == status
    listed = locked.client.get("/v1/models", headers=headers).json()["data"]
    assert [model["id"] for model in listed] == ["small"]


def test_a_good_key_opens_every_route(locked: Locked) -> None:
    headers = {"authorization": f"bearer {locked.good}"}
    for path in locked.paths:
        answer = locked.client.get(path, headers=headers)
        assert answer.status_code == (405 if path in ASKING or path.endswith("feedback") else 200), path


# Where a question goes is not the client's choice


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[FaultyEndpoint]:
    """A server that nobody may be led to."""
    with served_from_a_thread() as endpoint:
        yield endpoint
        assert endpoint.connections == set()


@pytest.fixture(scope="module")
def upstream() -> Iterator[tuple[Running, FaultyEndpoint]]:
    with relaying() as found:
        yield found


def test_a_model_that_is_an_address_is_no_model(
    upstream: tuple[Running, FaultyEndpoint], elsewhere: FaultyEndpoint
) -> None:
    running, _ = upstream
    names = [
        elsewhere.base_url,
        f"large@{elsewhere.base_url}",
        f"large/../../{elsewhere.base_url}",
        f"openai/{elsewhere.base_url}",
        "large\r\nhost: elsewhere",
        "large?x=1",
        "../large",
        "LARGE",
        " large",
        "corea:",
        "corea:large",
    ]
    with httpx.Client(base_url=running.url) as client:
        for (path, body), name in product(ASKING.items(), names):
            answer = client.post(path, json={**body, "model": name})
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found"), name


@pytest.mark.parametrize("name", ["base_url", "api_base", "api_key", "api_version", "user_config", "extra_headers"])
@pytest.mark.parametrize("more", [{}, {"tools": [TOOL]}], ids=["through the cascade", "relayed"])
def test_a_body_that_names_an_address_or_a_key_is_refused(
    upstream: tuple[Running, FaultyEndpoint], elsewhere: FaultyEndpoint, name: str, more: dict[str, Any]
) -> None:
    running, endpoint = upstream
    before = len(endpoint.requests)
    for path, body in ASKING.items():
        answer = httpx.post(running.url + path, json={**body, **more, name: elsewhere.base_url})
        assert answer.status_code == 400
        assert (answer.json()["error"]["param"], answer.json()["error"]["code"]) == (name, "unsupported_parameter")
    assert len(endpoint.requests) == before


@pytest.mark.parametrize(
    "header",
    ["host", "x-forwarded-host", "x-forwarded-for", "forwarded", "x-original-url", "x-base-url", "openai-base-url"],
)
def test_no_header_leads_elsewhere_or_is_handed_on(
    upstream: tuple[Running, FaultyEndpoint], elsewhere: FaultyEndpoint, header: str
) -> None:
    running, endpoint = upstream
    address = f"127.0.0.1:{elsewhere.port}"
    answer = httpx.post(
        f"{running.url}/v1/chat/completions",
        json={"model": "large", "messages": MESSAGES},
        headers={header: address, "cookie": "a=b", "openai-organization": "ours"},
    )
    assert answer.status_code == 200
    sent = endpoint.requests[-1].headers
    assert sent["Host"] == f"127.0.0.1:{endpoint.port}"
    assert not {"cookie", "openai-organization", "x-forwarded-host", "forwarded"} & {name.lower() for name in sent}
    assert address not in sent.values()


@pytest.mark.parametrize(
    "line",
    [
        "GET http://{elsewhere}/v1/models HTTP/1.1",
        "GET //{elsewhere}/v1/models HTTP/1.1",
        "CONNECT {elsewhere} HTTP/1.1",
    ],
)
def test_no_request_line_leads_elsewhere(
    upstream: tuple[Running, FaultyEndpoint], elsewhere: FaultyEndpoint, line: str
) -> None:
    running, _ = upstream
    said = line.format(elsewhere=f"127.0.0.1:{elsewhere.port}") + "\r\nhost: x\r\nconnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", running.port), timeout=5) as connection:
        connection.sendall(said.encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    status = int(answer.split(b" ", 2)[1])
    # An absolute address is answered as its path alone would be.
    assert status == (200 if "http:" in line else 400 if "CONNECT" in line else 404)


def test_who_asks_is_looked_at_before_the_body_is_read(tmp_path: Path) -> None:
    with (
        Ledger.open(f"sqlite:///{tmp_path / 'l.db'}") as ledger,
        serving(authorizer=VirtualKeys(ledger, PEPPER)) as running,
        socket.create_connection(("127.0.0.1", running.port), timeout=5) as connection,
    ):
        connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 401")
