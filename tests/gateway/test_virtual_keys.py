"""Virtual keys in front of the running gateway: who may ask, what for, and how much, with a real ledger."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from corea.errors import ConfigError
from corea.gateway import keys
from corea.gateway.auth import authorizer_of
from corea.gateway.keys import Limits, Pepper
from corea.gateway.virtual_keys import VirtualKeys
from corea.gateway_config import GatewayConfig
from corea.ledger import Ledger, list_traces
from gateway.running import Running, serving

PEPPER = Pepper(b"p" * 32)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}")
    yield opened
    opened.close()


@pytest.fixture
def running(ledger: Ledger) -> Iterator[Running]:
    with serving(authorizer=VirtualKeys(ledger, PEPPER), recorder=ledger) as gateway:
        yield gateway


def ask(running: Running, secret: str | None, model: str = "corea") -> httpx.Response:
    headers = {} if secret is None else {"authorization": f"Bearer {secret}"}
    body = {"model": model, "messages": [{"role": "user", "content": "6 × 7?"}], "max_tokens": 100}
    return httpx.post(f"{running.url}/v1/chat/completions", json=body, headers=headers, timeout=10)


def key(ledger: Ledger, **settings: Any) -> str:
    return keys.create(ledger, PEPPER, name="ann", **settings)[1]


def test_only_a_key_that_was_made_here_may_ask(running: Running, ledger: Ledger) -> None:
    secret = key(ledger)
    assert ask(running, secret).status_code == 200
    assert ask(running, None).status_code == 401
    assert ask(running, secret[:-1] + ("A" if secret[-1] != "A" else "B")).status_code == 401


def test_a_key_may_ask_for_its_profiles_only(running: Running, ledger: Ledger) -> None:
    secret = key(ledger, profiles=("small",))
    assert ask(running, secret, "small").status_code == 200
    assert ask(running, secret, "corea").status_code == 403


def test_the_requests_of_a_minute_are_counted(running: Running, ledger: Ledger) -> None:
    secret = key(ledger, limits=Limits(requests_per_minute=2))
    assert [ask(running, secret).status_code for _ in range(3)] == [200, 200, 429]
    refused = ask(running, secret)
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert 1 <= int(refused.headers["retry-after"]) <= 61
    assert secret not in refused.text


def test_a_key_that_is_changed_while_the_gateway_runs_is_held_to_its_new_limits(ledger: Ledger) -> None:
    with serving(authorizer=VirtualKeys(ledger, PEPPER, ttl_s=0.0), recorder=ledger) as running:
        secret = key(ledger, limits=Limits(requests_per_minute=1))
        assert [ask(running, secret).status_code for _ in range(2)] == [200, 429]
        keys.change(ledger, "ann", {"requests_per_minute": 2})
        assert [ask(running, secret).status_code for _ in range(2)] == [200, 429], "the first request counts too"
        keys.change(ledger, "ann", {"requests_per_minute": None, "profiles": ("small",), "task": "maths"})
        assert ask(running, secret).status_code == 403
        assert ask(running, secret, "small").status_code == 200
        assert list_traces(ledger)[0].task == "maths"
        keys.change(ledger, "ann", {"day_nano_usd": 1, "profiles": None})
        assert ask(running, secret).status_code == 429, "what was spent before the limit counts"


def test_money_is_charged_with_the_trace_until_the_day_is_spent(running: Running, ledger: Ledger) -> None:
    first = ask(running, key(ledger, limits=Limits(day_nano_usd=10**9)))
    (row,) = list_traces(ledger)
    assert first.status_code == 200
    assert row.cost_nano_usd is not None
    poor = keys.create(ledger, PEPPER, name="poor", limits=Limits(day_nano_usd=1))[1]
    refused = ask(running, poor)
    assert refused.status_code == 429
    assert refused.headers["x-should-retry"] == "false", "it never fits"


def test_a_request_that_is_refused_before_it_is_read_reserves_nothing(running: Running, ledger: Ledger) -> None:
    secret = key(ledger, limits=Limits(requests_per_minute=1))
    assert ask(running, secret, "no-such-model").status_code == 404
    assert ask(running, secret).status_code == 200


def test_virtual_keys_need_a_ledger() -> None:
    with pytest.raises(ConfigError, match="ledger.enabled"):
        authorizer_of(GatewayConfig(virtual_keys=True), None)


def test_two_kinds_of_keys_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="exclude each other"):
        GatewayConfig(virtual_keys=True, api_key_env="KEY")
