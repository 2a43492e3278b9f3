"""All metrics with intervals, and both curves, of a million outcomes against sorting a million floats: CPU time."""

from __future__ import annotations

import json
import resource
import time

from bench.measure import Figure, child, paired

QUESTIONS = 1_000_000
ROUNDS = 7


def measure() -> list[Figure]:
    found = json.loads(child("bench.metrics_speed"))
    detail = f"{found['ours_s'] * 1e3:.0f} ms, numpy.argsort {found['sort_s'] * 1e3:.0f} ms"
    name = f"metrics, intervals and curves of {QUESTIONS:,} outcomes"
    return [
        Figure(name=f"{name} ÷ numpy.argsort", value=found["ratio"], limit=15, detail=detail),
        Figure(name=f"peak memory of {name}", value=found["peak_mib"], unit="MiB", limit=2048),
    ]


def _run() -> dict[str, float]:
    import numpy as np
    from threadpoolctl import threadpool_limits

    from corea.evaluate.curves import area_under, deferral_curve, reliability, risk_coverage, share_of_oracle_saving
    from corea.evaluate.metrics import Resamples, pass_at_1, rank, signal_metrics
    from corea.evaluate.outcomes import Pair

    rng = np.random.default_rng(0)
    confidence = rng.random(QUESTIONS)
    names = np.full(QUESTIONS, "q", dtype=object)
    pair = Pair(
        small="small",
        large="large",
        ids=names,
        tasks=names,
        small_correct=(rng.random(QUESTIONS) < confidence).astype(np.float64),
        large_correct=(rng.random(QUESTIONS) < 0.8).astype(np.float64),
        small_cost_nano_usd=rng.integers(100, 1000, QUESTIONS).astype(np.float64),
        large_cost_nano_usd=rng.integers(1000, 10_000, QUESTIONS).astype(np.float64),
        confidence={"expected": confidence},
    )

    def ours() -> float:
        started = time.process_time()
        ranked = rank(confidence)
        resamples = Resamples(QUESTIONS, rng=np.random.default_rng(1))
        for correct in (pair.small_correct, pair.large_correct):
            pass_at_1(correct, resamples)
        signal_metrics(pair.small_correct, ranked, resamples)
        risk_coverage(pair.small_correct, ranked)
        curve = deferral_curve(pair, ranked)
        area_under(curve), share_of_oracle_saving(curve, pair), reliability(pair.small_correct, ranked)
        return time.process_time() - started

    def sort() -> float:
        started = time.process_time()
        np.argsort(confidence)
        return time.process_time() - started

    # As `measure` does: one core for each side.
    with threadpool_limits(limits=1, user_api="blas"):
        ours_s, sort_s, ratio = paired(ours, sort, rounds=ROUNDS)
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"ours_s": ours_s, "sort_s": sort_s, "ratio": ratio, "peak_mib": peak_mib}


if __name__ == "__main__":
    print(json.dumps(_run()))
