"""Exact test that a cascade loses less than ``eps`` of the large model's accuracy, from counts alone.

Of ``n`` independent questions, ``a`` are *harm* (the kept answer is wrong, the large model's right) and ``b`` are
*gain* (the other way round). With true rates h and g, the null hypothesis is h − g ≥ ε. Outcomes are ordered by the
score statistic of a difference of paired proportions, its variance at the constrained maximum likelihood (Farrington
and Manning 1990; Tango 1998). The p-value is the largest tail over a Clopper–Pearson interval for the nuisance g, plus
what that interval may miss (Berger and Boos 1994). For a fixed g the tail falls as h grows, so h = g + ε is the worst.

Knows nothing of confidences, thresholds or costs.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, NDArray
from scipy.special import bdtr, betaincinv, gammaln, ndtri

from corea.errors import InputError

#: What the interval for the gain rate may miss; it is added to every p-value.
BETA = 0.001
#: Gain rates tried in the interval: 401 give the same to four digits.
RATES = 41
#: Rounding in the sums, plus the mass outside the windows: below 2e⁻⁴⁰ by Bernstein's inequality at 9 sd + 30.
_ROUNDING = 1e-8

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def score(n: int, a: ArrayLike, b: ArrayLike, eps: float) -> Floats:
    """Score statistic of each (a, b); the smaller, the surer that the drop is below ``eps``. Shapes broadcast."""
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    # 2n·g² − linear·g − constant = 0, its root ≥ 0 in the form that loses no digits.
    linear = a * (1 + eps) + b * (1 - eps) - 2 * n * eps
    constant = b * eps * (1 - eps)
    root = np.sqrt(linear * linear + 8 * n * constant)
    rest = np.where(linear > 0, 1.0, np.maximum(root - linear, 1e-300))
    gain = np.where(linear > 0, (linear + root) / (4 * n), 2 * constant / rest)
    spread = np.sqrt((2 * gain + eps - eps * eps) / n)
    return np.asarray(((a - b) / n - eps) / spread)


@lru_cache(maxsize=200_000)
def p_value(n: int, a: int, b: int, eps: float) -> float:
    """Exact p-value of H₀: h − g ≥ ``eps`` after ``a`` harms and ``b`` gains in ``n`` questions."""
    _check(n, eps)
    if a < 0 or b < 0 or a + b > n:
        raise InputError(f"harm {a} and gain {b} must be ≥ 0 and add up to at most n = {n}")
    low, high = _gain_interval(n, b, b, eps)
    return worst_tail(n, eps, float(score(n, a, b, eps)), _rates(low, high, RATES))


@lru_cache(maxsize=200_000)
def most_harm(n: int, b: int, eps: float, delta: float) -> int:
    """The largest harm that passes at level ``delta`` beside ``b`` gains; −1 if none does.

    For a fixed ``b`` the interval is fixed and the score grows with a, so the p-value never falls as a grows.
    """
    _check(n, eps, delta)
    a = int(_largest_within(n, np.array([b]), eps, float(ndtri(delta)))[0])
    while a >= 0 and p_value(n, a, b, eps) > delta:
        a -= 1
    while a < n - b and p_value(n, a + 1, b, eps) <= delta:
        a += 1
    return a


def passes(n: int, a: int, b: int, eps: float, delta: float) -> bool:
    """Whether a drop below ``eps`` is established at level ``delta``. Most calls are a look into a table."""
    return a <= most_harm(n, b, eps, delta)


def first_failure(n: int, a: Ints, b: Ints, eps: float, delta: float) -> int:
    """Index of the first step that does not pass, or how many there are. ``a``, ``b``: shape (steps,), not falling."""
    _check(n, eps, delta)
    if len(a) == 0:
        return 0
    return _first_by_table(n, a, b, eps, delta) if n <= 5_000 else _first_by_blocks(n, a, b, eps, delta)


def _first_by_table(n: int, a: Ints, b: Ints, eps: float, delta: float) -> int:
    starts = np.flatnonzero(np.diff(b, prepend=-1))
    for start, end in zip(starts, [*starts[1:], len(b)], strict=True):
        harm = a[start:end]
        limit = most_harm(n, int(b[start]), eps, delta)
        if harm[-1] > limit:
            return int(start + np.searchsorted(harm, limit, side="right"))
    return len(a)


def _first_by_blocks(n: int, a: Ints, b: Ints, eps: float, delta: float) -> int:
    """Steps pass in bulk where the worst score of a block passes over the union of its intervals; else one by one."""
    z = score(n, a, b, eps)
    critical = float(ndtri(delta))
    at = 0
    for margin in (1.5, 0.3, 0.06):
        beyond = z[at:] > critical - margin
        end = at + (int(beyond.argmax()) if beyond.any() else len(beyond))
        if end > at and _block_passes(n, a[at:end], b[at:end], eps, delta):
            at = end
    size = 1
    while at < len(z):
        end = min(at + size, len(z))
        if _block_passes(n, a[at:end], b[at:end], eps, delta):
            at, size = end, size * 2
        elif end == at + 1:
            return at
        else:
            size = max(1, (end - at) // 4)
    return at


def _block_passes(n: int, a: Ints, b: Ints, eps: float, delta: float) -> bool:
    """True only if every step of the block passes; for steps of one ``b``, which the last of them decides, if and only
    if."""
    fewest, most = int(b[0]), int(b[-1])
    if fewest == most:
        return p_value(n, int(a[-1]), most, eps) <= delta
    low, high = _gain_interval(n, fewest, most, eps)
    # In √g, one standard deviation of the gain rate is about 1/(2√n) everywhere, and an interval is 6.6 of them long.
    width_sd = 2 * math.sqrt(n) * (math.sqrt(high) - math.sqrt(low))
    count = int(np.clip(6 * width_sd, RATES, 400))
    spacing_sd = width_sd / (count - 1)
    # Where rates lie wider apart than for a single step: between two of them a tail F of a few per cent is at most
    # 0.75·spacing² larger, since |d²F/dx²| ≤ 6F.
    slack = 1.0 if spacing_sd <= 0.2 else 1 + spacing_sd**2
    return slack * worst_tail(n, eps, float(score(n, a, b, eps).max()), _rates(low, high, count)) <= delta


def worst_tail(n: int, eps: float, z: float, rates: Floats) -> float:
    """Largest P(score ≤ ``z``) over the gain rates (shape (G,), rising) with h = g + ε, plus :data:`BETA`; at most 1.

    For each number of gains B the tail is A ≤ most(B), A binomial: Σ_B Binom(B; n, g)·BinomCDF(most(B); n − B, q) with
    q = (g + ε)/(1 − g), over a window of B around its mean.
    """
    reach = 9 * np.sqrt(n * rates * (1 - rates)) + 30
    width = min(int(2 * reach.max()) + 2, n + 1)
    starts = np.clip(np.floor(n * rates - reach), 0, n + 1 - width).astype(np.int64)
    gains = np.arange(starts.min(), starts.max() + width)
    most = _largest_within(n, gains, eps, z + 1e-12 * max(1.0, abs(z)))
    rows = starts - starts.min()

    g, q = rates[:, None], ((rates + eps) / (1 - rates))[:, None]
    safe = np.maximum(g, 1e-300)
    gain_terms = gammaln(n + 1) - gammaln(gains + 1) - gammaln(n - gains + 1)
    weights = sliding_window_view(gain_terms, width)[rows] + n * np.log1p(-g)
    weights += (starts[:, None] + np.arange(width)) * (np.log(safe) - np.log1p(-g))
    np.exp(weights, out=weights)
    below = _harm_cdf(n, gains, most, rows, width, q)
    return float(min(1.0, (weights * below).sum(axis=1).max() + BETA + _ROUNDING))


def _harm_cdf(n: int, gains: Ints, most: Ints, rows: Ints, width: int, q: Floats) -> Floats:
    """P(A ≤ most(B)) for each rate (row) and B in its window (column): one sum at the start, then increments.

    With m = n − B: P(Bin(m − 1) ≤ k + s) − P(Bin(m) ≤ k) = q·pmf(k; m − 1) + s·pmf(k + 1; m − 1), for s = 0 or 1.
    """
    harms = sliding_window_view(most, width)
    step, room = np.diff(most), n - gains - 2 - most
    if room.min() < 0 or step.min(initial=0) < 0 or step.max(initial=0) > 1 or q.max() >= 1:
        trials = sliding_window_view(n - gains, width)
        return _binomial_cdf(harms[rows], trials[rows], q)
    first = _binomial_cdf(most[rows], n - gains[rows], q[:, 0])
    k, trials = (most + 1)[:-1], (n - gains - 1)[:-1]
    terms = gammaln(trials + 1) - gammaln(k + 1) - gammaln(trials - k + 1)
    rest = width - 1
    if rest == 0:
        return first[:, None]
    pmf = sliding_window_view(terms, rest)[rows] + sliding_window_view(k, rest)[rows] * (np.log(q) - np.log1p(-q))
    pmf += sliding_window_view(trials, rest)[rows] * np.log1p(-q)
    np.exp(pmf, out=pmf)
    ratio = k / (trials - k + 1)
    pmf *= sliding_window_view(ratio, rest)[rows] * (1 - q) + sliding_window_view(step, rest)[rows]
    return np.cumsum(np.concatenate([first[:, None], pmf], axis=1), axis=1)


def _binomial_cdf(k: Ints, trials: Ints, q: Floats) -> Floats:
    return np.asarray(np.where(k < 0, 0.0, bdtr(np.maximum(k, 0), trials, q)))


def _largest_within(n: int, b: Ints, eps: float, z: float) -> Ints:
    """For each number of gains the largest harm whose score is at most ``z``; −1 if none. Shape (B,), by bisection."""
    low, high = np.full(len(b), -1, dtype=np.int64), n - b + 1
    while (high - low).max() > 1:
        middle = (low + high) // 2
        within = score(n, middle, b, eps) <= z
        # A pair that has met stays: its middle is `low`, which is within already (or −1, which is none).
        within |= middle == low
        low, high = np.where(within, middle, low), np.where(within, high, middle)
    return low


def _gain_interval(n: int, fewest: int, most: int, eps: float) -> tuple[float, float]:
    """Union of the 1 − :data:`BETA` Clopper–Pearson intervals for the gain rate, cut to g ≤ (1 − ε)/2 (h + g ≤ 1)."""
    low = 0.0 if fewest == 0 else float(betaincinv(fewest, n - fewest + 1, BETA / 2))
    high = 1.0 if most == n else float(betaincinv(most + 1, n - most, 1 - BETA / 2))
    cap = (1 - eps) / 2
    return min(low, cap), min(high, cap)


def _rates(low: float, high: float, count: int) -> Floats:
    return np.asarray(np.linspace(math.sqrt(low), math.sqrt(high), count) ** 2)


def _check(n: int, eps: float, delta: float = 0.5) -> None:
    if n < 1:
        raise InputError("a certificate needs at least one question that both models answered")
    if not 0 < eps < 1:
        raise InputError(f"the accuracy that may be lost must lie between 0 and 1 (0.02 is two points), not {eps!r}")
    if not BETA < delta < 1:
        raise InputError(f"delta, the risk that the promise is wrong, must lie between {BETA} and 1, not {delta!r}")
