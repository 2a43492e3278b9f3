"""How many audited answers it takes to notice that harm has risen, and how often nothing had.

    python -m bench.audit_drift [--runs 1000] [--out bench/results/audit_drift.json]

Simulated: every question of a task is kept, one in twenty is audited, and harm is 1 % until, at a known answer, it is
6 %; the promise is 2 %, at risk δ = 0.05. The audit's alarm is held against tests on a window of the last w audited
answers, after each of them:

- ``window, each look at δ``: the exact binomial test as one would use it once; its false alarms add up;
- ``window, Hoeffding`` and ``window, exact``: at δ ÷ the number of looks, so that false alarms within the horizon stay
  below δ. Beyond the horizon they promise nothing; the audit's alarm promises δ for ever;
- ``window, calibrated``: the lowest bar whose false alarms at a harm of just 2 % stayed below δ in as many simulated
  runs of the horizon: the best a window can do, for this share, this limit and this horizon.

A false alarm is one before anything rose. Writes ``bench/results/audit_drift.json``.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from corea.audit.detector import AUDITS_PER_START, log_weight
from corea.audit.sequence import bets

LIMIT, DELTA, SHARE = 0.02, 0.05, 0.05
QUIET, RISEN = 0.01, 0.06
#: Gains, where the net drop is watched: as many answers of the small model are right where the large one's are wrong.
GAIN = 0.01
HORIZON = 10_000
CHANGES = (0, 200, 1_000, 5_000)
AFTER = 2_000
WINDOWS = (100, 200, 400)
SEED = 20_271
RESULTS = Path(__file__).parent / "results" / "audit_drift.json"

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
#: Audited answers' harm, −1, 0 or 1, and how many questions came with each, itself among them: (runs, answers) both.
Answers = tuple[NDArray[np.int8], Ints]


def answers(rng: np.random.Generator, runs: int, harm: Floats, gain: float = 0.0) -> Answers:
    """Simulated audits: ``harm`` is the probability of a harmed answer, one for each audited answer in turn."""
    drawn = rng.random((runs, len(harm)))
    harmed = (drawn < harm).astype(np.int8) - ((drawn >= harm) & (drawn < harm + gain)).astype(np.int8)
    return harmed, rng.geometric(SHARE, size=(runs, len(harm)))


def alarms(seen: Answers, *, least: float, limit: float = LIMIT, delta: float = DELTA) -> Ints:
    """The audited answer, counted from 1, at which each run's alarm went off; 0 where it never did: (runs,).

    What :class:`corea.audit.detector.Detector` does, for many runs at once.
    """
    values, questions = seen
    mixed = bets(least, SHARE)
    sizes, weights = np.array(mixed.sizes), np.array(mixed.log_weights)
    cost, harmed, gained = (
        np.log1p(sizes * limit),
        np.log1p(sizes / SHARE),
        np.log1p(np.maximum(-sizes / SHARE, -0.999)),
    )
    logs = np.full((len(values), len(sizes)), log_weight(0))
    first = np.zeros(len(values), dtype=np.int64)
    for at in range(values.shape[1]):
        logs -= questions[:, at, None] * cost
        logs[values[:, at] > 0] += harmed
        logs[values[:, at] < 0] += gained
        if (at + 1) % AUDITS_PER_START == 0:
            np.logaddexp(logs, log_weight((at + 1) // AUDITS_PER_START), out=logs)
        # M falls but where an answer was harmed.
        risen = np.flatnonzero((values[:, at] > 0) & (first == 0))
        evidence = np.logaddexp.reduce(logs[risen] + weights, axis=1)
        first[risen[evidence >= -math.log(delta)]] = at + 1
    return first


def window_alarms(values: NDArray[np.int8], *, width: int, least_harmed: float) -> Ints:
    """As above, for ``least_harmed`` harmed answers or more among the last ``width``."""
    total = np.cumsum(np.pad(values, ((0, 0), (1, 0))), axis=1, dtype=np.int32)
    full = total[:, width:] - total[:, :-width] >= least_harmed
    return np.where(full.any(axis=1), full.argmax(axis=1) + width, 0)


def exact_bar(width: int, level: float) -> int:
    """The fewest harmed answers of ``width`` that reject a harm of ``LIMIT`` at this level."""
    return int(binom.isf(level, width, LIMIT)) + 1


def hoeffding_bar(width: int, level: float) -> float:
    return width * LIMIT + math.sqrt(width * -math.log(level) / 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """``bar=None`` is the audit's own alarm."""

    name: str
    width: int = 0
    bar: float | None = None

    def first(self, seen: Answers, *, least: float) -> Ints:
        if self.bar is None:
            return alarms(seen, least=least)
        return window_alarms(seen[0], width=self.width, least_harmed=self.bar)


def calibrated_bar(width: int, runs: int) -> int:
    """The fewest harmed answers that at most a share δ of quiet runs at the limit ever have in a window."""
    rng = np.random.default_rng(SEED + 1)
    most = np.zeros(runs, dtype=np.int64)
    for run in range(runs):
        total = np.cumsum(np.pad(rng.random(HORIZON) < LIMIT, (1, 0)), dtype=np.int32)
        most[run] = (total[width:] - total[:-width]).max()
    return int(np.quantile(most, 1 - DELTA, method="higher")) + 1


def rules(horizon: int, runs: int) -> list[Rule]:
    made = [Rule(name="audit")]
    for width in WINDOWS:
        level = DELTA / (horizon - width + 1)
        made += [
            Rule(name=f"window of {width}, each look at δ", width=width, bar=exact_bar(width, DELTA)),
            Rule(name=f"window of {width}, Hoeffding", width=width, bar=hoeffding_bar(width, level)),
            Rule(name=f"window of {width}, exact", width=width, bar=exact_bar(width, level)),
            Rule(name=f"window of {width}, calibrated", width=width, bar=calibrated_bar(width, runs)),
        ]
    return made


def measured(rule: Rule, runs: int, *, least: float, changes: Sequence[int]) -> dict[str, Any]:
    """One record; each rule sees the same runs as every other."""
    rng = np.random.default_rng(SEED)
    gain = GAIN if least < 0 else 0.0
    share = {}
    for name, rate in (("quiet", QUIET), ("at the limit", LIMIT)):
        first = _in_parts(rng, rule, runs, np.full(HORIZON, rate + gain), gain, least)
        share[name] = float((first > 0).mean())
    delays = {}
    for change in changes:
        rates = np.concatenate([np.full(change, QUIET + gain), np.full(AFTER, RISEN + gain)])
        first = _in_parts(rng, rule, runs, rates, gain, least)
        late = first[(first == 0) | (first > change)]
        waited = np.where(late == 0, np.inf, late - change)
        delays[str(change)] = {
            "median": _finite(np.median(waited)) if len(late) else None,
            "p90": _finite(np.quantile(waited, 0.9, method="higher")) if len(late) else None,
            "missed": float((late == 0).mean()) if len(late) else None,
            "false alarms before": float(1 - len(late) / runs),
        }
    return {"rule": rule.name, "harm": "net drop" if least < 0 else "disagreement",
            "false alarms, harm 1 %": share["quiet"], "false alarms, harm 2 %": share["at the limit"],
            "audited answers to alarm, by answers before the change": delays}  # fmt: skip


def _in_parts(
    rng: np.random.Generator, rule: Rule, runs: int, harm: Floats, gain: float, least: float, part: int = 250
) -> Ints:
    return np.concatenate(
        [rule.first(answers(rng, min(part, runs - at), harm, gain), least=least) for at in range(0, runs, part)]
    )


def _finite(number: float) -> float | None:
    return float(number) if math.isfinite(number) else None


def records(runs: int) -> Iterator[dict[str, Any]]:
    for rule in rules(HORIZON, runs):
        yield measured(rule, runs, least=0.0, changes=CHANGES)
    yield measured(Rule(name="audit"), runs, least=-1.0, changes=CHANGES)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=1_000)
    parser.add_argument("--out", type=Path, default=RESULTS)
    chosen = parser.parse_args()
    found = []
    for record in records(chosen.runs):
        found.append(record)
        print(json.dumps(record, ensure_ascii=False), flush=True)
    settings = {"limit": LIMIT, "delta": DELTA, "audited_share": SHARE, "quiet": QUIET, "risen": RISEN,
                "gain_where_net": GAIN, "horizon_audited": HORIZON, "after_change_audited": AFTER}  # fmt: skip
    body = {"runs": chosen.runs, **settings, "rules": found}
    chosen.out.write_text(json.dumps(body, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
