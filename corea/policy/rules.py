"""Other rules for a threshold, for the tables in which a certificate is compared. None is what COREA promises by.

Each takes n questions that both models answered and returns (confidence, tie fraction), or None: always defer. Rules
that walk stop for good at the first failure, like :mod:`corea.policy.certify`. All arrays have shape (n,).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr, expit, logit, rel_entr

from corea.policy.walk import Floats, Strings, Walk, walk

Threshold = tuple[float, float] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The questions at hand, and the walk along them."""

    confidence: Floats
    small_correct: Floats
    large_correct: Floats
    path: Walk

    @classmethod
    def of(cls, confidence: Floats, small_correct: Floats, large_correct: Floats, ids: Strings) -> Sample:
        path = walk(confidence, small_correct, large_correct, ids)
        return cls(confidence=confidence, small_correct=small_correct, large_correct=large_correct, path=path)


Rule = Callable[[Sample, float, float], Threshold]


def naive(sample: Sample, max_drop: float, delta: float) -> Threshold:
    """The cheapest threshold within ``max_drop`` on the questions at hand."""
    path = sample.path
    return _last(path, (path.harm - path.gain) / path.n <= max_drop)


def paper(sample: Sample, max_drop: float, delta: float) -> Threshold:
    """Keep where the calibrated P(right) reaches the large model's accuracy (arXiv 2603.03752).

    The calibration (Platt 1999, with his smoothed targets) is fitted on every second question.
    """
    usable = ~np.isnan(sample.confidence)
    fitted = usable & (np.arange(len(usable)) % 2 == 0)
    if not fitted.any():
        return None
    offset, slope = _platt(_logit(sample.confidence[fitted]), sample.small_correct[fitted])
    target = float(np.clip(sample.large_correct.mean(), 1e-6, 1 - 1e-6))
    reached = expit(offset + slope * _logit(sample.confidence)) >= target
    kept = sample.confidence[usable & reached]
    return (float(kept.min()), 1.0) if len(kept) and slope > 0 else None


def harm_only(sample: Sample, max_drop: float, delta: float) -> Threshold:
    """Walk with the exact binomial test on harm alone: P(Bin(n, ε) ≤ harm) ≤ δ."""
    path = sample.path
    return _walked(path, bdtr(path.harm, path.n, max_drop) <= delta)


def hoeffding_bentkus_harm(sample: Sample, max_drop: float, delta: float) -> Threshold:
    """Walk with the Hoeffding–Bentkus p-value (Bates et al. 2021) of the harm."""
    path = sample.path
    return _walked(path, _hoeffding_bentkus(path.harm / path.n, path.n, max_drop) <= delta)


def hoeffding_bentkus(sample: Sample, max_drop: float, delta: float) -> Threshold:
    """The same of the net loss, rescaled from [−1, 1] to [0, 1]."""
    path = sample.path
    loss = (1 + (path.harm - path.gain) / path.n) / 2
    return _walked(path, _hoeffding_bentkus(loss, path.n, (1 + max_drop) / 2) <= delta)


def conformal(sample: Sample, max_drop: float, delta: float) -> Threshold:
    """Conformal risk control (Angelopoulos et al. 2022) of the harm: (harm + 1) ÷ (n + 1) ≤ ε. True on average only."""
    path = sample.path
    return _last(path, (path.harm + 1) / (path.n + 1) <= max_drop)


def betting(sample: Sample, max_drop: float, delta: float) -> Threshold:
    """Walk with an even mixture of constant bets on the net drop (Waudby-Smith and Ramdas 2024).

    A bet λ turns 1 into Π(1 + λ(ε − xᵢ)), xᵢ ∈ {−1, 0, 1}, of expectation ≤ 1 where the drop is ε or more.
    """
    path = sample.path
    bets = np.linspace(0, 1 / (1 - max_drop), 42)[1:-1, None]
    rest = path.n - path.harm - path.gain
    logs = (
        path.harm * np.log1p(-bets * (1 - max_drop))
        + path.gain * np.log1p(bets * (1 + max_drop))
        + rest * np.log1p(bets * max_drop)
    )
    return _walked(path, np.logaddexp.reduce(logs, axis=0) - np.log(len(bets)) >= np.log(1 / delta))


RULES: Mapping[str, Rule] = {
    "naive": naive,
    "paper": paper,
    "conformal risk control": conformal,
    "Hoeffding–Bentkus, net": hoeffding_bentkus,
    "Hoeffding–Bentkus, harm": hoeffding_bentkus_harm,
    "harm only, exact": harm_only,
    "betting, net": betting,
}


def _walked(path: Walk, passed: NDArray[np.bool_]) -> Threshold:
    failed = np.flatnonzero(~passed)
    stop = int(failed[0]) - 1 if len(failed) else len(passed) - 1
    return path.threshold_at(stop) if stop >= 0 else None


def _last(path: Walk, allowed: NDArray[np.bool_]) -> Threshold:
    stops = np.flatnonzero(allowed)
    return path.threshold_at(int(stops[-1])) if len(stops) else None


def _hoeffding_bentkus(loss: Floats, n: int, alpha: float) -> Floats:
    low = np.minimum(loss, alpha)
    hoeffding = np.exp(-n * (rel_entr(low, alpha) + rel_entr(1 - low, 1 - alpha)))
    return np.asarray(np.minimum(hoeffding, np.e * bdtr(np.ceil(n * loss - 1e-9), n, alpha)))


def _logit(confidence: Floats) -> Floats:
    return np.asarray(logit(np.clip(confidence, 1e-6, 1 - 1e-6)))


def _platt(x: Floats, right: Floats) -> tuple[float, float]:
    """Offset and slope of a logistic curve, by Newton's method."""
    hits = right.sum()
    target = np.where(right == 1, (hits + 1) / (hits + 2), 1 / (len(right) - hits + 2))
    design = np.column_stack([np.ones_like(x), x])
    weights = np.zeros(2)
    for _ in range(30):
        p = expit(design @ weights)
        curvature = design.T @ (design * (p * (1 - p))[:, None]) + 1e-6 * np.eye(2)
        step = np.linalg.solve(curvature, design.T @ (target - p))
        weights = weights + step * min(1.0, 4.0 / max(1e-12, float(np.abs(step).max())))
    return float(weights[0]), float(weights[1])
