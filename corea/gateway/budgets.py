"""How budgets and latency targets fare, read when Prometheus asks. Counts nothing itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from corea.policy.base import Policies
from corea.policy.budget import Budget
from corea.policy.latency import Latency

_BUDGET = {
    "corea_budget_usd": "What may be spent in the window.",
    "corea_budget_spent_usd": "What was spent in it, by all replicas.",
    "corea_budget_price": "What money is worth: points of accuracy, of 100, for a dollar.",
    "corea_budget_expected_drop": "Expected harm of a request, 1 is all accuracy, if confidences are calibrated.",
    "corea_budget_paid_drop": "The part of it that is paid for the budget; less than 0 where the budget buys accuracy.",
    "corea_budget_short": "1 while the budget will not be held.",
}
_LATENCY = {
    "corea_latency_target_seconds": "What one request in twenty may exceed.",
    "corea_latency_measured_seconds": "What one in twenty of the last requests exceeded.",
}


class Policed(Collector):
    """By the policy's name in the configuration."""

    def __init__(self, policies: Policies) -> None:
        self._policies = policies

    def collect(self) -> Iterable[Metric]:
        told = {**_BUDGET, **_LATENCY}
        families = {name: GaugeMetricFamily(name, text, labels=["policy"]) for name, text in told.items()}
        for label, metric, value in self._samples():
            families[metric].add_metric([label], value)
        return [*(family for family in families.values() if family.samples), *self._hedges()]

    def _hedges(self) -> Iterator[Metric]:
        hedges = CounterMetricFamily(
            "corea_hedges", "Tiers asked beside the one before them; refused: too many.", labels=["policy", "what"]
        )
        for label, policies in self._policies.named.items():
            for policy in policies:
                if isinstance(policy, Latency) and policy.may_hedge:
                    hedges.add_metric([label, "begun"], policy.hedges)
                    hedges.add_metric([label, "refused"], policy.refused_hedges)
        if hedges.samples:
            yield hedges

    def _samples(self) -> Iterator[tuple[str, str, float]]:
        for label, policies in self._policies.named.items():
            for policy in policies:
                found = _of(policy)
                yield from ((label, metric, value) for metric, value in found.items())


def _of(policy: object) -> dict[str, float]:
    if isinstance(policy, Latency):
        measured = policy.measured_p95_s
        told = {"corea_latency_target_seconds": policy.p95_s}
        return told if measured is None else {**told, "corea_latency_measured_seconds": measured}
    if not isinstance(policy, Budget):
        return {}
    plan = policy.plan
    if plan is None:
        return {"corea_budget_usd": policy.nano_usd / 1e9}
    return {
        "corea_budget_usd": policy.nano_usd / 1e9,
        "corea_budget_spent_usd": plan.pace.spent_nano_usd / 1e9,
        "corea_budget_price": plan.price * 1e11,
        "corea_budget_expected_drop": plan.drop,
        "corea_budget_paid_drop": plan.paid,
        "corea_budget_short": float(plan.short is not None),
    }
