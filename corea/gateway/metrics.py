"""Prometheus metrics. Labels are bounded: routes, statuses, tiers and reasons, never what a client wrote.

Knows no PromQL: deploy/grafana/corea.json asks it.
"""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from corea import __version__
from corea.gateway.served import Served
from corea.types import Attempt, Trace

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_WAIT_SECONDS = (0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


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
        self._first_token = Histogram(
            "corea_time_to_first_token_seconds",
            "From a streamed request to the first word that goes out.",
            ["tier"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._wait = Histogram(
            "corea_queue_wait_seconds",
            "From the body to the request's turn.",
            buckets=_WAIT_SECONDS,
            registry=self.registry,
        )
        self._attempts = Counter("corea_attempts", "What tiers did.", ["tier", "reason"], registry=self.registry)
        self._guarded = Counter(
            "corea_guarded", "Answers that a guard deferred.", ["tier", "guard"], registry=self.registry
        )
        self._decided = Counter(
            "corea_decided_by_policy",
            "Attempts whose bar a policy set, or which it left out.",
            ["tier", "policy"],
            registry=self.registry,
        )
        self._answers = Counter("corea_answers", "Answers handed out, by tier.", ["tier"], registry=self.registry)
        self._deferred = Counter(
            "corea_deferred_answers", "Answers of a later tier than the first one asked.", registry=self.registry
        )
        self._cost = Counter("corea_cost_usd", "Known cost of attempts.", ["tier"], registry=self.registry)
        self._unknown = Counter(
            "corea_unknown_cost_attempts",
            "Attempts that may have cost something unknown.",
            ["tier"],
            registry=self.registry,
        )
        self._tokens = Counter(
            "corea_tokens",
            "Tokens of attempts and of the calls that ask how sure they are.",
            ["tier", "direction"],
            registry=self.registry,
        )
        self._failures = Counter(
            "corea_upstream_failures", "Attempts without a reply, by error.", ["tier", "kind"], registry=self.registry
        )
        self._saved = Gauge(
            "corea_saved_usd", "Saved so far against the last tier alone; can fall.", registry=self.registry
        )
        Gauge("corea_active_requests", "In progress.", registry=self.registry).set_function(active)
        Gauge("corea_queued_requests", "Waiting for their turn.", registry=self.registry).set_function(queued)
        Info("corea_build", "Which COREA this is.", registry=self.registry).info({"version": __version__})
        ProcessCollector(registry=self.registry)

    def answered(self, served: Served, elapsed_s: float) -> None:
        """``status`` 499: the client hung up before there was one."""
        self._requests.labels(served.route, str(served.status)).inc()
        self._seconds.labels(served.route).observe(elapsed_s)
        if served.first_token_s is not None and served.trace is not None:
            heard = served.trace.attempt or served.trace.attempts[-1]
            self._first_token.labels(heard.tier).observe(served.first_token_s)

    def waited(self, waited_s: float) -> None:
        self._wait.observe(waited_s)

    def traced(self, trace: Trace) -> None:
        for attempt in trace.attempts:
            self._attempted(attempt)
        if trace.tier is not None:
            self._answers.labels(trace.tier).inc()
            self._deferred.inc(trace.deferred)
        if trace.saved_nano_usd is not None:
            self._saved.inc(trace.saved_nano_usd / 1e9)

    def _attempted(self, attempt: Attempt) -> None:
        tier = attempt.tier
        decision = attempt.decision
        self._attempts.labels(tier, decision.reason.value).inc()
        if decision.guard is not None:
            self._guarded.labels(tier, decision.guard).inc()
        if decision.policy is not None:
            self._decided.labels(tier, decision.policy).inc()
        if attempt.cost_nano_usd is None:
            self._unknown.labels(tier).inc()
        else:
            self._cost.labels(tier).inc(attempt.cost_nano_usd / 1e9)
        if attempt.failure is not None:
            self._failures.labels(tier, attempt.failure.kind).inc()
        for usage in (attempt.usage, attempt.confidence_usage):
            if usage is not None:
                self._tokens.labels(tier, "input").inc(usage.prompt_tokens)
                self._tokens.labels(tier, "output").inc(usage.completion_tokens)

    def text(self) -> bytes:
        return generate_latest(self.registry)
