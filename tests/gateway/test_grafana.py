"""The dashboard asks for what the gateway measures: a metric or a label that is not there would be an empty panel."""

from __future__ import annotations

import asyncio
import json
import random
import re
from functools import cache
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from corea import Cascade
from corea.audit.auditor import Auditor
from corea.audit.plans import plans_of
from corea.audit_config import AuditConfig
from corea.errors import UpstreamStatus
from corea.gateway.app import Gateway
from corea.ledger import Ledger
from corea.models.breaker import Breaker, BreakerSettings
from corea.models.retrying import RetryBudget
from corea.policy.base import Policies
from corea.policy.budget import Budget
from corea.policy.latency import Latency
from corea.policy.spent import Counted
from corea.tier import Tier
from corea.types import Decision, Reason
from dashboard.filled import attempt, trace
from gateway.running import UNSURE, Kept, large, small
from policy.driven import Driven, Wall

FILE = Path(__file__).parents[2] / "deploy" / "grafana" / "corea.json"
DASHBOARD: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
NAMES = [panel["title"] for panel in PANELS]
EXPRESSIONS = [target["expr"] for panel in PANELS for target in panel["targets"]]
#: Those that Prometheus adds to whatever it reads.
_ADDED = frozenset({"job", "instance"})
_METRIC = re.compile(r"\b((?:corea|process)_[a-z_]+)\b(?:\{([^}]*)\})?")


@cache
def exposed() -> dict[str, set[str]]:
    """Labels by metric, of a gateway with policies and an audit that has seen a little of everything."""

    class Budgeted:
        """A model with a retry budget, and nothing behind it."""

        name = "flaky"
        retry_budget = RetryBudget()

        async def complete(self, prompt: object, *, timeout_s: float | None = None) -> Any:
            raise UpstreamStatus("no", status=500)

        async def aclose(self) -> None:
            """Nothing to close."""

    breaker = Breaker(BreakerSettings(), clock=lambda: 0.0, rng=random.Random(1))
    flaky = Tier(name="flaky", model=Budgeted(), threshold=0.5, breaker=breaker)
    with TemporaryDirectory() as folder, Ledger.open(f"sqlite:///{folder}/l.db") as ledger:
        auditor = audited(ledger)
        cascade = Cascade((flaky, small(UNSURE), large(price=None)), ledger=Kept(), policies=driven())
        gateway = Gateway(cascade, auditor=auditor)
        why = Decision(keep=False, reason=Reason.GUARDED, guard="refusal", policy="usual")
        gateway.metrics.traced(trace(1, random.Random(1), attempts=(attempt(decision=why),), final=None))
        return labels_of(gateway)


def driven() -> Policies:
    """A budget and a latency target that have seen some requests."""
    wall, tiers = Wall(), ("small", "large")
    budget = Budget(nano_usd=10**6, per="day", tiers=tiers, spent=Counted(), wall_clock=wall)
    latency = Latency(p95_s=5.0, tiers=tiers, means=("hedge",))
    Driven([latency, budget], wall=wall).asked(60, random.Random(1), for_s=60.0)
    return Policies(named={"usual": (latency, budget)})


def audited(ledger: Ledger) -> Auditor:
    """An auditor that has seen all there is to see."""
    settings = AuditConfig(share=0.5, max_usd_per_day=1.0, limit=0.02)
    plans = plans_of(settings, threshold=0.8, certificate=None, tiers=2)
    auditor = Auditor(large(), ledger, settings, plans, first="small")
    asyncio.run(auditor.refresh())
    counts = auditor.counts
    counts.questions, counts.ended = {"kept": 1}, {"agreed": 1}
    counts.trouble, counts.alarms, counts.affordable_share = {"money": 1}, {"all": 1}, 0.5
    return auditor


def labels_of(gateway: Gateway) -> dict[str, set[str]]:
    async def main() -> None:
        transport = httpx.ASGITransport(app=gateway)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            for stream in (False, True):
                body = {"model": "corea", "messages": [{"role": "user", "content": "?"}], "stream": stream}
                await client.post("/v1/chat/completions", json=body)

    asyncio.run(main())
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(gateway.metrics.text().decode()):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def grouped(expression: str) -> set[str]:
    return {label.strip() for by in re.findall(r"\bby \(([^)]*)\)", expression) for label in by.split(",")}


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_each_query_asks_for_metrics_and_labels_that_there_are(expression: str) -> None:
    asked = _METRIC.findall(expression)
    assert asked
    for metric, matchers in asked:
        assert metric in exposed(), metric
        labels = exposed()[metric] | _ADDED
        assert set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers)) <= labels
        assert grouped(expression) <= labels


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_each_query_is_well_formed(expression: str) -> None:
    stack: list[str] = []
    for one in re.sub(r'"[^"]*"', '""', expression):
        if one in "([{":
            stack.append(one)
        elif one in ")]}":
            assert stack
            assert stack.pop() + one in ("()", "[]", "{}")
    assert not stack
    for metric in re.findall(r"(corea_[a-z_]+_(?:total|bucket))\b", expression):
        assert re.search(rf"(?:rate|increase)\({metric}\{{[^}}]*\}}\[\$__(?:rate_interval|range)\]\)", expression)
    assert '{job=~"$job"' in expression


def test_every_metric_of_ours_is_on_it() -> None:
    asked = {metric for expression in EXPRESSIONS for metric, _ in _METRIC.findall(expression)}
    ends = re.compile(r"_(?:bucket|sum|count|created)$")
    there = {ends.sub("", name) for name in exposed() if name.startswith("corea_")}
    there -= {name.removesuffix("_total") for name in there if name.endswith("_total")}
    assert there <= {ends.sub("", name) for name in asked}


def test_panels_have_a_title_a_unit_and_words_and_do_not_overlap() -> None:
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    assert len(set(NAMES)) == len(NAMES)
    for panel in PANELS:
        assert panel["title"]
        assert panel["description"].endswith(".")
        assert panel["fieldConfig"]["defaults"]["unit"]
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        assert [target["refId"] for target in panel["targets"]] == list("ABCDE"[: len(panel["targets"])])
    for one, other in combinations((panel["gridPos"] for panel in PANELS), 2):
        apart_x = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        apart_y = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert apart_x or apart_y


def test_it_works_with_whatever_prometheus_there_is() -> None:
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    sources = {
        json.dumps(part["datasource"], sort_keys=True) for panel in PANELS for part in (panel, *panel["targets"])
    }
    assert sources == {'{"type": "prometheus", "uid": "${datasource}"}'}
    assert DASHBOARD["schemaVersion"] >= 39
    assert "id" not in DASHBOARD
