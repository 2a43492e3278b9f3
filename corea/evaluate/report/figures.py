"""Every figure of a report, as frozen values and as plain data. Computes none of them and draws nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Literal

from corea.evaluate.baselines import Baseline, Point
from corea.evaluate.curves import ReliabilityBin
from corea.evaluate.metrics import Estimate, GroupMetrics
from corea.policy.certificate import Certified

#: Of the JSON that :func:`to_json` makes.
VERSION = 1

#: How the signal came to be the one that is certified.
How = Literal["named", "only", "chosen", "none"]
#: Whose threshold the figures are about: a certificate's, the cheapest one that looks good, or none.
By = Literal["certified", "naive", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The signal that is certified. ``n``: questions spent on choosing it, 0 where there was no choice."""

    signal: str | None
    how: How
    n: int = 0
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Certification:
    """What may be promised, from ``n`` questions; ``note`` says why ``certified`` is None."""

    certified: Certified | None
    n: int
    note: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """The cascade at one threshold, on all questions. Without one (``by="none"``) the large model answers them all.

    ``drop``: the large model's accuracy − the cascade's.
    """

    by: By
    threshold: float | None
    tie_fraction: float
    n: int
    kept: int
    kept_wrong: int
    point: Point
    drop: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class RiskPoint:
    """Error rate ``risk`` of the answers kept at ``threshold``, which are the share ``coverage`` of all."""

    threshold: float
    coverage: float
    risk: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalFigures:
    """What one signal's confidences look like, and what they are good for, on all questions."""

    name: str
    reliability: tuple[ReliabilityBin, ...]
    reliability_equal_mass: tuple[ReliabilityBin, ...]
    risk_coverage: tuple[RiskPoint, ...]
    area_under_frontier: Estimate
    share_of_oracle_saving: Estimate
    note: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """What becomes of the questions of a task or domain at the threshold. ``low``, ``high``: 95 % (Wilson)."""

    by: Literal["task", "domain"]
    name: str
    n: int
    kept: int
    kept_wrong: int
    deferral_rate: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """What ``n`` questions cost in nano-USD, of which the large model's calls for deferred ones; None where unknown."""

    n: int
    small_nano_usd: float | None
    deferred_nano_usd: float | None
    large_alone_nano_usd: float | None
    note: str | None = None

    @property
    def saved_nano_usd(self) -> float | None:
        """Negative where the cascade costs more than the large model alone."""
        if self.small_nano_usd is None or self.deferred_nano_usd is None or self.large_alone_nano_usd is None:
            return None
        return self.large_alone_nano_usd - self.small_nano_usd - self.deferred_nano_usd


@dataclass(frozen=True, slots=True, kw_only=True)
class WrongAnswer:
    """A wrong answer of the small model that is kept. Texts are None where the outcomes do not hold them."""

    id: str
    task: str | None
    question: str | None
    answer: str | None
    gold: str | None
    confidence: float | None
    small_correct: float
    large_correct: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Gallery:
    """The most confident of ``wrong`` wrong answers among ``kept``; the large model is right on ``large_right``."""

    kept: int
    wrong: int
    large_right: int
    shown: tuple[WrongAnswer, ...]
    note: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """Kept answers that have something in common, and fail more often than the others. Rates are shares of wrong ones.

    ``adjusted_p_value``: Holm's, over all slices looked at.
    """

    by: Literal["task", "length", "word"]
    name: str
    n: int
    wrong: int
    rate: float
    rate_elsewhere: float
    p_value: float
    adjusted_p_value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Slices:
    """Those of the ``looked_at`` slices of ``n`` answers that fail significantly more often, the surest first."""

    n: int
    wrong: int
    looked_at: int
    level: float
    found: tuple[Slice, ...]
    note: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Two tiers on the same n questions. ``headline`` says it in words; ``notes`` are about the whole of it.

    ``groups``: all questions, then the largest tasks and domains. ``frontier_note``: on what ``baselines`` were taken.
    """

    version: int = VERSION
    title: str
    source: str
    data_hash: str | None
    created_at: str | None
    versions: Mapping[str, str]
    small: str
    large: str
    n: int
    max_drop: float
    delta: float
    headline: tuple[str, ...]
    notes: tuple[str, ...]
    choice: Choice
    certification: Certification
    operation: Operation
    groups: tuple[GroupMetrics, ...]
    signals: tuple[SignalFigures, ...]
    baselines: tuple[Baseline, ...]
    frontier_note: str | None
    fates: tuple[Fate, ...]
    costs: Costs
    gallery: Gallery
    slices: Slices

    @property
    def overall(self) -> GroupMetrics:
        """The metrics of all questions together."""
        return self.groups[0]


def to_json(report: Report) -> dict[str, Any]:
    """Every figure as dictionaries, lists, strings and numbers. What is not finite is None, as JSON knows no other."""
    plain: dict[str, Any] = _plain(report)
    plain["costs"]["saved_nano_usd"] = report.costs.saved_nano_usd
    certified = report.certification.certified
    plain["certification"]["promise"] = certified.promise if certified else None
    return plain


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if isinstance(value, float):
        # numpy's own floats are floats, but not to every writer of JSON.
        return float(value) if math.isfinite(value) else None
    return value
