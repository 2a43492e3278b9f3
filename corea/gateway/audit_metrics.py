"""What the audit did and knows, read when Prometheus asks. Counts nothing itself.

Labels are tasks that have a watch of their own, and a few fixed words: nothing that a client writes.
"""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from corea.audit.auditor import Auditor


class Audits(Collector):
    def __init__(self, auditor: Auditor) -> None:
        self._auditor = auditor

    def collect(self) -> Iterable[Metric]:
        return [*self._counted(), *self._known()]

    def _counted(self) -> list[Metric]:
        counts = self._auditor.counts
        by = {
            "questions": ("Questions by what the audit made of them.", "what", counts.questions),
            "ended": ("Audits that ended, by what they told.", "how", counts.ended),
            "paused": ("Questions left out while auditing paused, by why.", "why", counts.trouble),
            "alarms": ("Alarms that this process was the first to raise.", "task", counts.alarms),
        }
        found: list[Metric] = []
        for name, (told, label, values) in by.items():
            family = CounterMetricFamily(f"corea_audit_{name}", told, labels=[label])
            for value, number in sorted(values.items()):
                family.add_metric([value], number)
            found.append(family)
        plain = {
            "cost_usd": ("Known cost of audits; in no answer's cost.", counts.cost_nano_usd / 1e9),
            "unknown_cost": ("Audits that may have cost something unknown.", counts.unknown_cost),
            "webhook_failures": ("Alarms that nobody took.", counts.webhook_failed),
        }
        return found + [CounterMetricFamily(f"corea_audit_{name}", *told) for name, told in plain.items()]

    def _known(self) -> list[Metric]:
        auditor = self._auditor
        bounds = GaugeMetricFamily("corea_audit_harm", "Bounds of mean harm in this epoch.", labels=["task", "bound"])
        audited = GaugeMetricFamily("corea_audit_audited", "Audited answers in this epoch.", labels=["task"])
        threshold = GaugeMetricFamily(
            "corea_audit_threshold", "In force by the audit; above 1: always defer.", labels=["task"]
        )
        opened = GaugeMetricFamily("corea_audit_alarm_open", "1 until the user approves.", labels=["task"])
        for status in auditor.statuses():
            task = status.task or "all"
            audited.add_metric([task], status.audited)
            threshold.add_metric([task], 2.0 if status.step.threshold is None else status.step.threshold)
            opened.add_metric([task], float(status.state == "alarm"))
            if status.bounds is not None:
                bounds.add_metric([task, "low"], status.bounds.low)
                bounds.add_metric([task, "high"], status.bounds.high)
        paused = GaugeMetricFamily("corea_audit_is_paused", "1 while nothing is drawn.", float(bool(auditor.paused)))
        waiting = GaugeMetricFamily("corea_audit_waiting", "Drawn, and not ended.", auditor.waiting)
        found: list[Metric] = [bounds, audited, threshold, opened, paused, waiting]
        if (share := auditor.counts.affordable_share) is not None:
            told = "Share of kept answers that the day's cap pays."
            found.append(GaugeMetricFamily("corea_audit_affordable_share", told, share))
        return found
