"""What policies tell Prometheus: budgets, latency targets and hedges, by the policy's name."""

from __future__ import annotations

import random

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from corea.gateway.budgets import Policed
from corea.policy.base import Policies, Policy
from corea.policy.budget import Budget
from corea.policy.latency import Latency
from corea.policy.spent import Counted
from policy.driven import LARGE_NANO_USD, Driven, Wall


def figures(**policies: Policy) -> dict[str, float]:
    registry = CollectorRegistry()
    registry.register(Policed(Policies(named={name: (policy,) for name, policy in policies.items()})))
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {
        " ".join([sample.name, *sample.labels.values()]): sample.value
        for family in families
        for sample in family.samples
    }


def test_a_budget_tells_what_it_spent_and_what_drop_it_pays_with() -> None:
    wall = Wall()
    budget = Budget(
        nano_usd=100 * LARGE_NANO_USD, per="day", tiers=("small", "large"), spent=Counted(), wall_clock=wall
    )
    assert figures(thrifty=budget) == {"corea_budget_usd thrifty": 0.001}
    day = Driven([budget], wall=wall)
    day.asked(100, random.Random(1), for_s=6 * 3600)
    found = figures(thrifty=budget)
    assert budget.plan is not None
    assert found["corea_budget_spent_usd thrifty"] == budget.plan.pace.spent_nano_usd / 1e9 > 0
    assert found["corea_budget_paid_drop thrifty"] == budget.plan.paid
    assert found["corea_budget_short thrifty"] == float(budget.plan.short is not None)


def test_hedges_are_counted_where_they_are_allowed() -> None:
    plain, hedging = (
        Latency(p95_s=5.0, tiers=("small", "large"), means=means) for means in (("skip",), ("skip", "hedge"))
    )
    day = Driven([plain, hedging])
    day.asked(60, random.Random(1), for_s=60)
    hedge = hedging.before(day.view(), day.own).hedge
    assert hedge is not None
    assert [hedge.allowed() for _ in range(3)] == [True, True, False]
    found = figures(plain=plain, quick=hedging)
    assert {name: value for name, value in found.items() if "hedges" in name} == {
        "corea_hedges_total quick begun": 2.0,
        "corea_hedges_total quick refused": 1.0,
    }
    assert found["corea_latency_target_seconds plain"] == 5.0
