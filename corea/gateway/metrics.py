"""Prometheus metrics. Labels are bounded: routes, statuses, tiers and reasons, never what a client wrote."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from corea.types import Trace

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """One registry a gateway: two of them in one process do not mix."""

    def __init__(self, *, active: Callable[[], int], queued: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter("corea_requests", "Requests answered.", ["route", "status"], registry=self.registry)
        self._seconds = Histogram(
            "corea_request_seconds",
            "From the request to the last byte.",
            ["route"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._attempts = Counter("corea_attempts", "What tiers did.", ["tier", "reason"], registry=self.registry)
        self._answers = Counter("corea_answers", "Answers handed out, by tier.", ["tier"], registry=self.registry)
        self._cost = Counter("corea_cost_usd", "Known cost of attempts.", ["tier"], registry=self.registry)
        self._unknown = Counter(
            "corea_unknown_cost_attempts",
            "Attempts that may have cost something unknown.",
            ["tier"],
            registry=self.registry,
        )
        self._saved = Gauge(
            "corea_saved_usd", "Saved so far against the last tier alone; can fall.", registry=self.registry
        )
        Gauge("corea_active_requests", "In progress.", registry=self.registry).set_function(active)
        Gauge("corea_queued_requests", "Waiting for their turn.", registry=self.registry).set_function(queued)

    def answered(self, route: str, status: int, elapsed_s: float) -> None:
        """``status`` 499: the client hung up before there was one."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(elapsed_s)

    def traced(self, trace: Trace) -> None:
        for attempt in trace.attempts:
            self._attempts.labels(attempt.tier, attempt.decision.reason.value).inc()
            if attempt.cost_nano_usd is None:
                self._unknown.labels(attempt.tier).inc()
            else:
                self._cost.labels(attempt.tier).inc(attempt.cost_nano_usd / 1e9)
        if trace.tier is not None:
            self._answers.labels(trace.tier).inc()
        if trace.saved_nano_usd is not None:
            self._saved.inc(trace.saved_nano_usd / 1e9)

    def text(self) -> bytes:
        return generate_latest(self.registry)
