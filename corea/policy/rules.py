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
    """Walk, betting against a drop of ε or more (Waudby-Smith and Ramdas 2024): capital 1 must once reach 1/δ.

    Question i, in the order given, turns the capital by 1 + λᵢ(ε − xᵢ), x ∈ {−1, 0, 1}; λᵢ is their approximate GRAPA
    bet, from the mean and variance of the questions before. Thresholds are tried 64 at a time: shape (64, n).
    """
    path = sample.path
    place = np.full(path.n, path.n)
    place[path.order] = np.arange(len(path.order))
    count = np.arange(1, path.n + 1)
    for start in range(0, len(path.kept), 64):
        kept = place < path.kept[start : start + 64, None]
        x = np.where(kept, sample.large_correct - sample.small_correct, 0.0)
        mean = (np.cumsum(x, axis=1) - x) / count
        variance = (max_drop + np.cumsum(x * x, axis=1) - x * x) / count - mean * mean
        room = max_drop - mean
        bet = np.clip(room / (np.maximum(variance, 1e-4) + room * room), 0, 0.9 / (1 - max_drop))
        capital = np.cumsum(np.log1p(bet * (max_drop - x)), axis=1).max(axis=1)
        failed = np.flatnonzero(capital < np.log(1 / delta))
        if len(failed):
            stop = start + int(failed[0]) - 1
            return path.threshold_at(stop) if stop >= 0 else None
    return path.threshold_at(len(path.kept) - 1) if len(path.kept) else None


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
