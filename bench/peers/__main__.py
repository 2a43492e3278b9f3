"""``python -m bench.peers DATA --envs DIR [--draws 100] [--out bench/results/peers.json]``.

DATA is the folder of question sets that holds ``outcomes/``; DIR keeps the peers' environments. ``python -m
bench.pages`` writes the tables into docs/peers.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from bench.certify_public import best_saving
from bench.peers import automix, bargain, cascadeflow, litellm, ours, page, routellm
from bench.peers.cases import Bools, Ints, Questions, own, public, splits
from bench.peers.decisions import DELTA, MAX_DROP, Ask, figures, rows_of, saved
from bench.peers.environments import ask, installed

SEED = 20_270
PACKAGES = {
    "bargain": bargain.PACKAGE,
    "automix": automix.PACKAGE,
    "litellm": litellm.PACKAGE,
    "cascadeflow": cascadeflow.PACKAGE,
    "routellm": routellm.PACKAGE,
}


def measured(questions: list[Questions], *, draws: int, peers: Mapping[str, Ask]) -> dict[str, Any]:
    """All records; every method sees the same halves of a case."""
    calibration = {
        one.name: splits(len(one), draws, np.random.default_rng([SEED, number])) for number, one in enumerate(questions)
    }
    batches = {
        one.name: _orders(len(one), draws, np.random.default_rng([SEED, number, 2]))
        for number, one in enumerate(questions)
    }
    by_bargain = bargain.decided(questions, calibration, batches, peers["bargain"])
    by_automix = automix.decided(questions, calibration, peers["automix"])
    by_litellm = litellm.decided(questions, calibration, peers["litellm"])
    by_cascadeflow = cascadeflow.decided(questions, calibration, peers["cascadeflow"])
    records, batched = [], []
    for number, one in enumerate(questions):
        parts = calibration[one.name]
        made = ours.decided(one.case, parts, np.random.default_rng([SEED, number, 1]))
        of_bargain, in_batches = by_bargain[one.name]
        made += [of_bargain, by_automix[one.name], *by_litellm[one.name], *by_cascadeflow.get(one.name, [])]
        named = {"case": one.name, "family": one.family}
        records += [named | {"method": each.method} | asdict(figures(one.case, parts, each)) for each in made]
        batched += [named | each for each in _batches(one, batches[one.name], in_batches)]
    return {
        "draws": draws,
        "max_drop": MAX_DROP,
        "delta": DELTA,
        "versions": {package.name: package.version for package in PACKAGES.values()},
        "cases": [_described(one) for one in questions],
        "records": records,
        "one_batch": batched,
        "routellm": routellm.evaluated(questions, peers["routellm"]),
    }


def _batches(one: Questions, batches: Ints, of_bargain: Bools) -> list[dict[str, Any]]:
    """Saving, and share of the batches within 2 points, where each batch pays for all that it takes to calibrate."""
    every = np.ones(batches.shape[1], dtype=np.bool_)
    found: dict[str, list[tuple[float, bool]]] = {}
    for rows, bargained in zip(batches, of_bargain, strict=True):
        batch = rows_of(one.case, rows)
        for method, kept in ((ours.CERTIFIED, ours.in_batch(batch)), (bargain.METHOD, bargained)):
            drop = float(((batch.large_correct - batch.small_correct) * kept).mean())
            # The small model answers what calibrates, even where it is never asked again.
            paid = saved(batch, kept, every, "batch")
            if method == ours.CERTIFIED and not kept.any():
                paid = -float(batch.small_cost[: len(rows) // 2].sum() / batch.large_cost.sum())
            found.setdefault(method, []).append((paid, drop <= MAX_DROP + 1e-12))
    return [
        {"method": method, "saving": mean(saving for saving, _ in done), "within": mean(within for _, within in done)}
        for method, done in found.items()
    ]


def _orders(n: int, draws: int, rng: np.random.Generator) -> Ints:
    """All questions as one batch, in an order by lot: (draws, n)."""
    return np.array([rng.permutation(n) for _ in range(draws)])


def _described(one: Questions) -> dict[str, Any]:
    case = one.case
    return {
        "case": one.name,
        "family": one.family,
        "questions": len(one),
        "small": float(case.small_correct.mean()),
        "large": float(case.large_correct.mean()),
        "best": best_saving(case),
    }


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("data", type=Path, help="folder of question sets that holds outcomes/")
    options.add_argument("--envs", type=Path, required=True, help="folder for the peers' environments")
    options.add_argument("--draws", type=int, default=100)
    options.add_argument("--out", type=Path, default=page.RESULT)
    given = options.parse_args()
    if not (given.data / "outcomes").is_dir():
        print(f"skipped: {given.data / 'outcomes'} is not here; name the folder that holds outcomes/")
        return 0
    peers = {name: partial(ask, installed(package, given.envs), name) for name, package in PACKAGES.items()}
    started = time.monotonic()
    made = measured([*public(given.data), *own()], draws=given.draws, peers=peers)
    made["seconds"] = round(time.monotonic() - started)
    given.out.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    print(page.tables(made))
    return 0


if __name__ == "__main__":
    sys.exit(main())
