"""Metrics: seconds and totals, labels that no client can make more of, and figures that are those of the ledger."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from corea import Cascade, __version__
from corea.confidence.p_true import PTrue
from corea.errors import UpstreamStatus
from corea.gateway.app import Gateway
from corea.gateway.auth import Authorizer, OneKey
from corea.gateway_config import GatewayConfig
from corea.models.scripted import Hang, Step, scripted_reply
from corea.tier import Tier
from corea.types import Prompt
from gateway.running import UNSURE, Kept, large, serving, small

PLAIN: dict[str, Any] = {"model": "corea", "messages": [{"role": "user", "content": "What is 6 × 7?"}]}
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(text: str) -> Samples:
    found = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
    return {(sample.name, frozenset(sample.labels.items())): sample.value for sample in found}


def value(found: Samples, name: str, **labels: str) -> float:
    return found[name, frozenset(labels.items())]


def metrics_after(
    *requests: Mapping[str, Any],
    tiers: tuple[Tier, ...] = (),
    authorizer: Authorizer | None = None,
    gateway: Gateway | None = None,
) -> Samples:
    built = gateway or Gateway(Cascade(tiers or (small(UNSURE), large()), ledger=Kept()), authorizer=authorizer)

    async def main() -> None:
        transport = httpx.ASGITransport(app=built)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            for request in requests:
                await client.request(**{"method": "POST", "url": "/v1/chat/completions", "json": PLAIN, **request})

    asyncio.run(main())
    return samples(built.metrics.text().decode())


ODD: list[dict[str, Any]] = [
    {"json": {**PLAIN, "model": "odd-{i}"}},
    {"json": {**PLAIN, "odd-{i}": "odd-{i}"}},
    {"json": {**PLAIN, "user": "odd-{i}", "metadata": {"odd-{i}": "x"}, "temperature": 0.5}},
    {"json": {**PLAIN, "stream": True}},
    {"url": "/odd-{i}"},
    {"url": "/v1/models/odd-{i}", "method": "GET"},
    {"url": "/v1/chat/completions?odd-{i}=odd-{i}"},
    {"method": "ODD{i}"},
    {"headers": {"authorization": "Bearer odd-{i}", "user-agent": "odd-{i}", "odd-{i}": "x"}},
    {"headers": {"traceparent": "00-0000000000000000000000000000000{i}-000000000000000{i}-01"}},
    {"url": "/v1/corea/feedback", "json": {"trace_id": "odd-{i}", "correct": True}},
]


def filled(template: Any, i: int) -> Any:
    if isinstance(template, dict):
        return {filled(name, i): filled(inner, i) for name, inner in template.items()}
    if isinstance(template, list):
        return [filled(inner, i) for inner in template]
    return template.replace("{i}", str(i)) if isinstance(template, str) else template


@pytest.mark.parametrize("authorizer", [None, OneKey("k")])
def test_whatever_clients_send_the_series_stay_the_same(authorizer: Authorizer | None) -> None:
    gateway = Gateway(Cascade((small(UNSURE), large()), ledger=Kept()), authorizer=authorizer)
    once = metrics_after(*(filled(one, 1) for one in ODD), gateway=gateway)
    later = metrics_after(*(filled(one, i) for i in range(2, 9) for one in ODD), gateway=gateway)
    assert set(later) == set(once)
    assert not any("odd" in text for name, labels in later for pair in labels for text in (name, *pair))
    assert value(later, "corea_requests_total", route="unknown", status="401" if authorizer else "404") == 8


def test_names_say_their_unit_and_every_metric_says_what_it_is() -> None:
    gateway = Gateway(Cascade((small(), large())))
    for family in text_string_to_metric_families(gateway.metrics.text().decode()):
        if family.name.startswith("process_"):
            continue
        assert re.fullmatch(r"corea_[a-z_]+", family.name)
        assert family.documentation.endswith(".")
        if family.type == "histogram":
            assert family.name.endswith("_seconds")


def test_tokens_and_costs_are_those_of_the_ledger() -> None:
    def script(prompt: Prompt, index: int) -> Step:
        return UNSURE if index == 0 else scripted_reply("False", distribution={"True": 0.1, "False": 0.9})

    kept = Kept()
    asks = small(estimator=PTrue())
    asks.model._script = script  # type: ignore[attr-defined]
    gateway = Gateway(Cascade((asks, large()), ledger=kept))
    found = metrics_after({}, gateway=gateway)
    (trace,) = kept.traces
    for attempt in trace.attempts:
        usage, more = attempt.usage, attempt.confidence_usage
        assert usage is not None
        assert more is not None
        both = usage + more
        assert value(found, "corea_tokens_total", tier=attempt.tier, direction="input") == both.prompt_tokens
        assert value(found, "corea_tokens_total", tier=attempt.tier, direction="output") == both.completion_tokens
        assert attempt.cost_nano_usd is not None
        assert value(found, "corea_cost_usd_total", tier=attempt.tier) == pytest.approx(attempt.cost_nano_usd / 1e9)
    assert trace.attempts[0].confidence_usage
    assert trace.saved_nano_usd is not None
    assert value(found, "corea_saved_usd") == pytest.approx(trace.saved_nano_usd / 1e9)
    assert value(found, "corea_answers_total", tier="large") == 1


def test_failures_are_counted_by_tier_and_kind() -> None:
    found = metrics_after({}, {}, tiers=(small(UpstreamStatus("no", status=500)), large()))
    assert value(found, "corea_upstream_failures_total", tier="small", kind="UpstreamStatus") == 2
    assert value(found, "corea_attempts_total", tier="small", reason="failed") == 2


def test_a_stream_says_when_its_first_word_went_out() -> None:
    found = metrics_after({}, {"json": {**PLAIN, "stream": True}})
    assert value(found, "corea_time_to_first_token_seconds_count", tier="large") == 1
    assert value(found, "corea_time_to_first_token_seconds_sum", tier="large") > 0
    assert value(found, "corea_request_seconds_count", route="/v1/chat/completions") == 2


def test_a_client_who_left_is_counted() -> None:
    with serving(large(Hang())) as running:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{running.url}/v1/chat/completions", json=PLAIN, timeout=0.5)
        assert running.trace.attempts[0].failure is not None
    found = samples(running.gateway.metrics.text().decode())
    assert value(found, "corea_requests_total", route="/v1/chat/completions", status="499") == 1
    assert value(found, "corea_upstream_failures_total", tier="large", kind="Abandoned") == 1


def test_waiting_for_a_turn_is_measured() -> None:
    gateway = Gateway(Cascade([large()], ledger=Kept()), GatewayConfig(max_active=1))
    found = metrics_after({}, {}, gateway=gateway)
    assert value(found, "corea_queue_wait_seconds_count") == 2


def test_it_says_which_version_it_is() -> None:
    assert value(metrics_after(), "corea_build_info", version=__version__) == 1
