"""A certificate on 1,000,000 outcomes against one ``numpy.argsort`` of a million floats."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from bench.measure import Figure, paired
from corea.policy import exact
from corea.policy.certify import certify

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

    def certificate(values: np.ndarray) -> Callable[[], None]:
        def run() -> None:
            exact.p_value.cache_clear()
            exact.most_harm.cache_clear()
            done = certify(values, small, large, ids, small_cost=small_cost, large_cost=large_cost)
            assert done.threshold is not None

        return run

    def sort() -> None:
        np.argsort(confidence)

    figures = []
    for name, values, limit in (("", confidence, 8.0), (", 73 % tied", tied, None)):
        run = certificate(values)
        ours, theirs, ratio = paired(lambda run=run: _wall_s(run), lambda: _wall_s(sort), rounds=ROUNDS)
        detail = f"{ours * 1e3:.0f} ms and {theirs * 1e3:.0f} ms"
        title = f"certificate on {N:,} outcomes{name} ÷ one argsort"
        figures.append(Figure(name=title, value=ratio, limit=limit, detail=detail))
    return figures


def _wall_s(action: Callable[[], None]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started
