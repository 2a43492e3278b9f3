"""A certificate on 1,000,000 outcomes against one ``numpy.argsort`` of a million floats."""

from __future__ import annotations

import time
from functools import partial

import numpy as np

from bench.measure import Figure, paired
from corea.policy import exact
from corea.policy.certify import certify
from corea.policy.walk import Floats

N = 1_000_000
ROUNDS = 9
SEED = 7


def measure() -> list[Figure]:
    rng = np.random.default_rng(SEED)
    confidence = rng.random(N)
    small = (rng.random(N) < 0.5 + 0.5 * confidence).astype(np.float64)
    large = (rng.random(N) < np.where(small == 1, 0.95, 0.6)).astype(np.float64)
    ids = np.array([f"question-{index}" for index in range(N)], dtype=object)
    small_cost, large_cost = np.full(N, 1.0), np.full(N, 10.0)
    # 73 % of the answers at one confidence: what models do at worst. Each of them must be hashed.
    tied = np.where(confidence > 0.27, 1.0, confidence)

    def certificate_s(values: Floats) -> float:
        exact.p_value.cache_clear()
        exact.most_harm.cache_clear()
        started = time.perf_counter()
        done = certify(values, small, large, ids, small_cost=small_cost, large_cost=large_cost)
        elapsed_s = time.perf_counter() - started
        assert done.threshold is not None
        return elapsed_s

    def sort_s() -> float:
        started = time.perf_counter()
        np.argsort(confidence)
        return time.perf_counter() - started

    figures = []
    for name, values, limit in (("", confidence, 8.0), (", 73 % of them tied", tied, None)):
        ours, theirs, ratio = paired(partial(certificate_s, values), sort_s, rounds=ROUNDS)
        detail = f"{ours * 1e3:.0f} ms and {theirs * 1e3:.0f} ms"
        title = f"certificate on {N:,} outcomes{name} ÷ one argsort"
        figures.append(Figure(name=title, value=ratio, limit=limit, detail=detail))
    return figures
