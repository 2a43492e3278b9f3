"""How likely the exact test is to pass, and how many questions that takes.

Knows no walk: rates are given.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import bdtr, gammaln, ndtri, xlog1py, xlogy

from corea.policy.exact import most_harm

#: Beyond so many questions the normal approximation of the exact test is good to about a per cent.
EXACT_MAX_N = 5_000

Floats = NDArray[np.float64]


def power(n: int, harm_rate: float, gain_rate: float, eps: float, delta: float) -> float:
    """P(the exact test passes) at these true rates: Σ_B Binom(B; n, g)·P(A ≤ most harm that passes beside B)."""
    spread = 5 * math.sqrt(n * gain_rate) + 5
    gains = np.arange(max(0, int(n * gain_rate - spread)), min(n, int(n * gain_rate + spread)) + 1)
    most = np.array([most_harm(n, int(b), eps, delta) for b in gains])
    logs = gammaln(n + 1) - gammaln(gains + 1) - gammaln(n - gains + 1)
    weights = np.exp(logs + xlogy(gains, gain_rate) + xlog1py(n - gains, -gain_rate))
    # Where all questions gain, none is left to harm.
    share = harm_rate / (1 - gain_rate) if gain_rate < 1 else 0.0
    below = np.where(most < 0, 0.0, bdtr(np.maximum(most, 0), n - gains, share))
    return float(weights @ below)


def about_needed(
    harm_rate: ArrayLike, gain_rate: ArrayLike, eps: float, delta: float, *, wanted_power: float = 0.8
) -> Floats:
    """Questions needed for that power by the normal approximation; inf where the drop is ``eps`` or more.

    ((z₁₋δ·σ₀ + z_power·σ₁) ÷ (ε − drop))², σ₀ at the constrained maximum likelihood of the rates (Tango 1998).
    """
    h, g = np.asarray(harm_rate, dtype=np.float64), np.asarray(gain_rate, dtype=np.float64)
    linear = h * (1 + eps) + g * (1 - eps) - 2 * eps
    constrained = (linear + np.sqrt(linear**2 + 8 * g * eps * (1 - eps))) / 4
    null, true = 2 * constrained + eps - eps**2, h + g - (h - g) ** 2
    room = np.maximum(eps - (h - g), 0)
    reach = ndtri(1 - delta) * np.sqrt(null) + ndtri(wanted_power) * np.sqrt(np.maximum(true, 0))
    with np.errstate(divide="ignore"):
        return np.asarray((reach / room) ** 2)


def needed(harm_rate: float, gain_rate: float, eps: float, delta: float, *, wanted_power: float = 0.8) -> int | None:
    """Questions with which the exact test passes with that power, to about 1 %; None if the drop is ``eps`` or more.

    The power of an exact test is a saw in n, so this is the place where it settles above, not its first tooth.
    """
    about = float(about_needed(harm_rate, gain_rate, eps, delta, wanted_power=wanted_power))
    if not math.isfinite(about) or about > 1e12:
        return None
    if about > EXACT_MAX_N:
        return math.ceil(about)
    low, high = max(1, int(about / 2)), math.ceil(2 * about) + 10
    while high - low > max(1, 0.01 * low):
        middle = (low + high) // 2
        if power(middle, harm_rate, gain_rate, eps, delta) >= wanted_power:
            high = middle
        else:
            low = middle
    return high
