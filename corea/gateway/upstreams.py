"""How the tiers' upstreams fare, read when Prometheus asks: breakers and retry budgets. Counts nothing itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from corea.models.retrying import RetryBudget
from corea.tier import Tier


class Upstreams(Collector):
    """Each tier's, by its name. A tier without a breaker or a budget has no such sample."""

    def __init__(self, tiers: Sequence[Tier]) -> None:
        self._tiers = tuple(tiers)

    def collect(self) -> Iterable[Metric]:
        opened = GaugeMetricFamily("corea_breaker_open", "1 while the tier is left alone.", labels=["tier"])
        retries = CounterMetricFamily("corea_retries", "Calls that were tried again.", labels=["tier"])
        refused = CounterMetricFamily(
            "corea_retry_budget_exhausted", "Retries not made because the budget was spent.", labels=["tier"]
        )
        for tier in self._tiers:
            if tier.breaker is not None:
                opened.add_metric([tier.name], float(tier.breaker.is_open))
        for name, budget in self._budgets():
            retries.add_metric([name], budget.retries)
            refused.add_metric([name], budget.refused)
        return opened, retries, refused

    def _budgets(self) -> Iterator[tuple[str, RetryBudget]]:
        for tier in self._tiers:
            budget = getattr(tier.model, "retry_budget", None)
            if isinstance(budget, RetryBudget):
                yield tier.name, budget
