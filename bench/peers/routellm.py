"""RouteLLM's evaluation (Ong et al. 2024, arXiv 2406.18665) of our scores: the package's metrics, and our own code.

PGR is the share of the gap between both models that is closed; APGR its mean over all shares of calls to the large
model; CPT(x %) the share of calls at which x % of the gap is closed. It counts calls, not money: a cascade pays for the
small model on top. Not a policy: it picks no threshold. Its routers need models that are not at hand, and were not run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.certify_public import Case, Floats
from bench.peers.cases import Questions, unknown_last
from bench.peers.decisions import Ask
from bench.peers.environments import Package

#: Of its requirements only those of the evaluation: the others are for its routers, and some gigabytes.
PACKAGE = Package(
    name="routellm", version="0.2.0", alone=True,
    others=(
        "numpy==1.26.4", "pandas==2.2.3", "matplotlib==3.9.4", "psutil==6.1.1", "pandarallel==1.6.5",
        "pyyaml==6.0.2", "tqdm==4.67.1",
    ),
)  # fmt: skip
THRESHOLDS = 10
CPT = (0.2, 0.5, 0.8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """Accuracy against the share of calls to the large model, fewest first; (thresholds,)."""

    calls: Floats
    accuracy: Floats
    small: float
    large: float


def curve(case: Case) -> Curve:
    """At ten shares evenly apart, and the ends: a question goes to the large model where the score is lowest."""
    n = len(case.ids)
    # Ties by the hash of the id, as in a cascade.
    order = np.lexsort((-case.fractions, unknown_last(case.confidence)))
    gained = np.append(0.0, np.cumsum((case.large_correct - case.small_correct)[order]))
    at = np.unique(np.round(np.linspace(0, n, THRESHOLDS + 1)).astype(np.int64))
    small = float(case.small_correct.mean())
    return Curve(calls=at / n, accuracy=small + gained[at] / n, small=small, large=float(case.large_correct.mean()))


def apgr(of: Curve) -> float | None:
    """None where the large model is no better."""
    gap = of.large - of.small
    if gap <= 0:
        return None
    heights = (of.accuracy[1:] + of.accuracy[:-1]) / 2 - of.small
    return float((heights * np.diff(of.calls)).sum() / gap)


def cpt(of: Curve, share: float) -> float | None:
    """The least share of calls that closes so much of the gap, between neighbours by a straight line."""
    gap = of.large - of.small
    if gap <= 0:
        return None
    wanted = of.small + share * gap
    first = int(np.argmax(of.accuracy >= wanted))
    if first == 0:
        return float(of.calls[0])
    low, high = of.accuracy[first - 1], of.accuracy[first]
    return float(of.calls[first - 1] + (wanted - low) / (high - low) * (of.calls[first] - of.calls[first - 1]))


def evaluated(questions: Sequence[Questions], ask: Ask) -> list[dict[str, Any]]:
    """One record a case: by our code, and by the package on the same points."""
    curves = {one.name: curve(one.case) for one in questions}
    told = ask({"cases": {name: asked(of) for name, of in curves.items()}})["cases"]
    return [
        {
            "case": one.name,
            "family": one.family,
            "apgr": apgr(curves[one.name]),
            "cpt": [cpt(curves[one.name], share) for share in CPT],
            "package": told[one.name],
        }
        for one in questions
    ]


def asked(of: Curve) -> dict[str, Any]:
    return {"calls": of.calls.tolist(), "accuracy": of.accuracy.tolist(), "small": of.small, "large": of.large}
