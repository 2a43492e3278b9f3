"""Ladders of three on real outcomes of one family of public models: what is certified, against the best pair.

    python -m bench.ladder_public --data DIR [--draws 200] [--out bench/results/ladder_public.json]

Each case (three models, a set of questions) is a known population. Questions are drawn from it with replacement; a
third of a draw chooses, the rest certifies; what was certified is held to its promise on the population: at most 2
points below the dearest model. Savings are the population's, net of all calls, against the dearest model alone. Rules:

- ladder: the best of both pairs and the three, chosen on the third (``corea.evaluate.ladders.search``);
- pair: the better of the pairs, chosen and certified on the same questions as the ladder;
- named pair: each pair on all questions of the draw, as if it had been named beforehand: no question is spent on a
  choice. The better of the two by the population is a choice that nobody can make, and so an upper mark for pairs;
- best: the most that thresholds could save within 2 points, known the whole population.

The margin for a tier more and the curve behind the path were chosen on seven cases, five of which are among these.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from corea.evaluate.certification import Terms
from corea.evaluate.ladders import search
from corea.policy.ladder import Answers, certify_pair, kept_by
from corea.policy.ladder_certificate import CertifiedLadder
from corea.policy.walk import Floats, Ints

MAX_DROP = 0.02
SIZES, DELTAS = (300, 1000), (0.05,)
SEED = 20_267
FAMILY = ("llama3.2-1b", "llama3.2-3b", "llama3.1-8b", "llama3.1-70b", "llama3.1-405b")
DATASETS = ("mmlu", "gsm8k")


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One rule on one case: mean saving, and the share of draws in which its promise was broken."""

    case: str
    rule: str
    n: int
    delta: float
    saving: float
    broken: float
    #: Share of the draws in which the ladder was one of three tiers.
    of_three: float | None = None


def cases(file: Path) -> dict[str, Answers]:
    """Every three of the family that end in 70B or 405B, on both sets."""
    rows: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            rows.setdefault((row["dataset"], row["model"]), {})[row["id"]] = row
    return {
        f"{dataset}: {' → '.join(tiers)}": _answers([rows[dataset, tier] for tier in tiers], tiers)
        for dataset in DATASETS
        for tiers in combinations(FAMILY, 3)
        if tiers[-1] in FAMILY[-2:]
    }


def run(case: str, population: Answers, *, draws: int, rng: np.random.Generator) -> Iterator[Record]:
    for n in SIZES:
        done: dict[tuple[str, float], list[tuple[float, float]]] = {}
        three: dict[float, int] = dict.fromkeys(DELTAS, 0)
        for _ in range(draws):
            drawn = population.at(rng.integers(len(population), size=n))
            choosing = np.arange(n) < n // 3
            for delta in DELTAS:
                terms = Terms(max_drop=MAX_DROP, delta=delta)
                found = search(drawn, choosing, terms)
                three[delta] += len(found.ladder.tiers) == 3
                pair = found.ladder
                if len(pair.tiers) > 2:
                    better = next(one.tiers for one in found.candidates if len(one.tiers) == 2)
                    pair = _pair(drawn.where(~choosing), better, delta)
                made = {"ladder": found.ladder, "pair": pair}
                made |= {f"named: {small}": _pair(drawn, (small, drawn.tiers[-1]), delta) for small in drawn.tiers[:-1]}
                for rule, ladder in made.items():
                    done.setdefault((rule, delta), []).append(_truth(population, ladder))
        for (rule, delta), results in done.items():
            yield Record(
                case=case, rule=rule, n=n, delta=delta, saving=mean(saving for _, saving in results),
                broken=mean(drop > MAX_DROP + 1e-12 for drop, _ in results),
                of_three=three[delta] / draws if rule == "ladder" else None,
            )  # fmt: skip


def best_savings(population: Answers) -> tuple[float, float]:
    """The most that any thresholds save within 2 points: by a pair, and by all three tiers."""
    last = len(population.tiers) - 1
    pairs = [_best_pair(population.of([tier, last])) for tier in range(last)]
    return max(pairs), max(*pairs, _best_three(population))


def table(records: list[Record], best: Mapping[str, tuple[float, float]], *, delta: float) -> str:
    """Markdown: saving and broken promises in per cent, a line a case."""
    heads = [f"n = {n}: {rule}" for n in SIZES for rule in ("ladder (of three)", "pair", "better named pair")]
    lines = ["| case | best pair / three | " + " | ".join(heads) + " |", "|---" * (len(heads) + 2) + "|"]
    rows: list[list[float]] = []
    for case, (pair, three) in best.items():
        cells, row = [], [pair, three]
        for n in SIZES:
            of = {one.rule: one for one in records if (one.case, one.n, one.delta) == (case, n, delta)}
            named = max((one for rule, one in of.items() if rule.startswith("named")), key=lambda one: one.saving)
            for one in (of["ladder"], of["pair"], named):
                row += [one.saving, one.broken]
                extra = "" if one.of_three is None else f" ({one.of_three:.0%})"
                cells.append(f"{100 * one.saving:.1f} / {100 * one.broken:.1f}{extra}")
        rows.append(row)
        lines.append(f"| {case} | {100 * pair:.1f} / {100 * three:.1f} | " + " | ".join(cells) + " |")
    means = [100 * mean(column) for column in zip(*rows, strict=True)]
    shown = [f"{means[at]:.1f} / {means[at + 1]:.1f}" for at in range(0, len(means), 2)]
    return "\n".join([*lines, "| **mean** | " + " | ".join(shown) + " |"])


def _pair(drawn: Answers, tiers: tuple[str, ...], delta: float) -> CertifiedLadder:
    columns = [drawn.tiers.index(tier) for tier in tiers]
    return certify_pair(drawn.of(columns), max_drop=MAX_DROP, delta=delta)


def _truth(population: Answers, ladder: CertifiedLadder) -> tuple[float, float]:
    """Drop and saving on the whole population."""
    if not ladder.holds:
        return 0.0, 0.0
    counted = kept_by(ladder, population)
    assert counted.saving is not None
    return float(counted.harm[0] - counted.gain[0]) / counted.n, float(counted.saving[0])


def _best_pair(pair: Answers) -> float:
    order = _order(pair, 0)
    drop = np.cumsum((pair.correct[:, 1] - pair.correct[:, 0])[order]) / len(pair)
    saved = np.cumsum(pair.cost[order, 1]) - pair.cost[:, 0].sum()
    within = drop <= MAX_DROP + 1e-12
    return max(0.0, float(saved[within].max(initial=0.0) / pair.cost[:, 1].sum()))


def _best_three(three: Answers) -> float:
    """Over all (i, j): the i surest of the first tier kept there, of the others the j surest of the second."""
    n, right, cost = len(three), three.correct, three.cost
    place = np.empty((2, n), dtype=np.int64)
    for tier in range(2):
        place[tier, _order(three, tier)] = np.arange(n)
    always = cost[:, 2].sum()

    def over(first: Floats, second: Floats) -> Floats:
        """Sum of ``first`` over those kept by the first tier, plus of ``second`` over those kept by the second."""
        by_first = np.append(0.0, np.cumsum(first[np.argsort(place[0])]))
        grid = np.zeros((n + 1, n + 1))
        grid[place[0], place[1] + 1] = second
        # Left to the second tier are the rows from i on.
        left = np.cumsum(np.cumsum(grid[::-1], axis=0)[::-1], axis=1)
        return np.asarray(by_first[:, None] + left)

    drop = over(right[:, 2] - right[:, 0], right[:, 2] - right[:, 1]) / n
    # Whoever is kept first is spared the second call as well.
    spared = over(cost[:, 1] + cost[:, 2], cost[:, 2])
    saving = (spared - cost[:, 0].sum() - cost[:, 1].sum()) / always
    return float(saving[drop <= MAX_DROP + 1e-12].max(initial=0.0))


def _order(answers: Answers, tier: int) -> Ints:
    return np.lexsort((answers.fractions, -answers.confidence[:, tier]))


def _answers(rows: list[dict[str, Mapping[str, Any]]], tiers: tuple[str, ...]) -> Answers:
    ids = sorted(set.intersection(*(set(of) for of in rows)))

    def column(value: Any) -> Floats:
        return np.array([[float(value(of[one])) for of in rows] for one in ids])

    return Answers(
        tiers=tiers,
        correct=column(lambda row: row["correct"] >= 0.5),
        cost=column(lambda row: row["cost_usd"]),
        confidence=column(lambda row: min(1.0, max(0.0, next(iter(row["confidence"].values())))))[:, :-1],
        keys=np.array(ids, dtype=object),
    )


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", type=Path, required=True, help="folder that holds outcomes/*.jsonl.gz")
    options.add_argument("--draws", type=int, default=200)
    options.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "ladder_public.json")
    asked = options.parse_args()
    file = asked.data / "outcomes" / "hcma-cascades.jsonl.gz"
    if not file.is_file():
        print(f"skipped: {file} is not here; --data names the folder that holds outcomes/")
        return 0
    found = cases(file)
    best = {case: best_savings(population) for case, population in found.items()}
    records: list[Record] = []
    for number, (case, population) in enumerate(found.items()):
        records += run(case, population, draws=asked.draws, rng=np.random.default_rng([SEED, number]))
        print(f"{number + 1}/{len(found)} {case}, {len(population)} questions", file=sys.stderr, flush=True)
    described = [
        {"case": case, "questions": len(found[case]), "best_pair": pair, "best_three": three}
        for case, (pair, three) in best.items()
    ]
    made = {"draws": asked.draws, "cases": described, "records": [asdict(one) for one in records]}
    asked.out.parent.mkdir(exist_ok=True)
    asked.out.write_text(json.dumps(made, indent=1) + "\n")
    for delta in DELTAS:
        print(f"\nδ = {delta:g}\n\n{table(records, best, delta=delta)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
