"""How sure a tier is: the protocol, its parser, and the estimators."""

from __future__ import annotations

from corea.confidence.base import Estimate, Estimator, Exchange
from corea.confidence.expected import Expected
from corea.confidence.generated_tests import GeneratedTests
from corea.confidence.logprob import Logprob
from corea.confidence.p_true import PTrue
from corea.confidence.self_consistency import SelfConsistency
from corea.confidence.verbalized import Verbalized

__all__ = [
    "Estimate",
    "Estimator",
    "Exchange",
    "Expected",
    "GeneratedTests",
    "Logprob",
    "PTrue",
    "SelfConsistency",
    "Verbalized",
]
