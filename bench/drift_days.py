"""Drift days with the audit on: does the alarm ring on the day, does the threshold tighten, and what is lost then?

    python -m bench.drift_days --data DIR [--seeds 5]

The drift days of :mod:`bench.days` (MMLU, Llama-3.1 8B → 70B, at most 2 points certified on half of the questions; no
budget), each answer kept from the step in force, a share of those kept audited. Audits know who is right, as if there
were gold answers: the best that the measure ``drop`` can do. Prints a line of JSON a share.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from bench.certify_public import Case, cases
from bench.days import DELTA, MAX_DROP, PER_HOUR, SEED, _pool
from corea.audit.harm import drop_between
from corea.audit.steps import Step
from corea.audit.watch import Plan, Seen, Watch
from corea.policy.certify import certify
from corea.simulate.days import DAYS, HOUR_S, events

SHARES = (0.0, 0.05, 0.2, 1.0)


def day_of(case: Case, seed: int, share: float) -> dict[str, Any]:
    """One day: its drop, without the audit where ``share`` is 0, and the hours at which alarms rang."""
    rng = np.random.default_rng([SEED, seed])
    certifying = rng.permutation(len(case.ids)) < len(case.ids) // 2
    found = certify(
        case.confidence[certifying], case.small_correct[certifying], case.large_correct[certifying],
        case.ids[certifying], max_drop=MAX_DROP, delta=DELTA,
    )  # fmt: skip
    at = found.threshold or 1.0
    steps = tuple(Step(threshold=at + way * (1 - at)) for way in (0.0, 0.5, 0.75))
    watch = Watch.of(Plan(limit=MAX_DROP, delta=DELTA, min_propensity=share or 1.0, steps=steps))
    lots, lost, kept_count, n, unseen, rang = np.random.default_rng([SEED, seed, 1]), 0.0, 0, 0, 0, []
    for event in events(DAYS["drift"](PER_HOUR), _pool(case, ~certifying), rng):
        small, large = event.tiers["small"], event.tiers["large"]
        bar = watch.step.threshold
        kept = bar is not None and small.confidence is not None and small.confidence >= bar
        n += 1
        kept_count += kept
        lost += kept * (large.correct - small.correct)
        if not kept or lots.random() >= share:
            unseen += 1
            continue
        epoch = watch.epoch
        if unseen:
            watch = watch.after(Seen(propensity=share, at_unix_s=event.time_s, epoch=epoch, questions=unseen))
        harm = drop_between(agrees=None, small_right=bool(small.correct), large_right=bool(large.correct))
        watch = watch.after(Seen(propensity=share, harm=harm, at_unix_s=event.time_s, epoch=epoch))
        unseen = 0
        if watch.epoch != epoch:
            rang.append(round(event.time_s / HOUR_S, 1))
    return {"drop": lost / n, "kept": kept_count / n, "rang_h": rang}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder that holds outcomes/*.jsonl.gz")
    parser.add_argument("--seeds", type=int, default=5)
    chosen = parser.parse_args()
    case = next(one for one in cases(chosen.data / "outcomes") if one.name == "mmlu: llama3.1-8b → llama3.1-70b")
    for share in SHARES:
        runs = [day_of(case, seed, share) for seed in range(chosen.seeds)]
        print(json.dumps({"share": share} | {key: [run[key] for run in runs] for key in runs[0]}), flush=True)


if __name__ == "__main__":
    main()
