"""Certified thresholds on real outcomes of public models: how often the promise was broken, and what is saved.

    python -m bench.certify_public --data DIR [--draws 400] [--out bench/results/certify_public.json]

Each case (a small model, a large one, a set of questions, a confidence of the small model's own) is a known population.
Questions are drawn from it with replacement, each rule chooses a threshold from the draw, and is held to its promise on
the population: a drop of at most 2 points. Savings are the population's, net of the small model's calls. A rule whose
threshold saves nothing on the draw defers always. Costs are those in the data; where it has none, a large call costs
20 small ones.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corea.policy.certify import certify, savings
from corea.policy.rules import RULES, Sample, Threshold
from corea.policy.ties import fraction
from corea.policy.walk import walk

MAX_DROP = 0.02
RATIO = 20.0
SIZES, DELTAS = (300, 1000), (0.1, 0.05)
SEED = 20_260
#: Small and large model of the twelve cases whose savings are averaged, each on MMLU and on GSM8K.
PAIRS = (
    ("llama3.1-8b", "llama3.1-70b"),
    ("llama3.1-8b", "llama3.1-405b"),
    ("gpt-4o-mini", "gpt-4o"),
    ("llama3.2-3b", "llama3.1-70b"),
    ("llama3.1-70b", "llama3.1-405b"),
    ("qwen2.5-72b-instruct", "gpt-4o"),
)
#: Confidences of Llama 3.1 8B, each with GPT-4 as the large model on three sets, for the worst case only.
SIGNALS = ("p_true", "prob_mean", "self_probing", "cot_prob_mean", "cot_token_sar")
GPT4 = {
    "asdiv": ("motcascade", "gpt-4", "cot prompt1 greedy"),
    "gsm8k": ("motcascade", "gpt-4", "cot prompt1 greedy"),
    "svamp": ("faithfulcot", "gpt-4", "8-shot cot"),
}
CERTIFIED = "**certified walk**"
#: A walk that was tried, and dropped since it saved no more; it is in the record.
COST_AWARE = "**certified walk, cost-aware order**"
_COLUMNS = tuple((n, delta) for delta in DELTAS for n in SIZES)
_WORST_DELTA = 0.1
_TITLES = {
    "naive": "naive: cheapest within 2 points on the sample",
    "paper": "the paper's rule, Platt-calibrated",
    CERTIFIED: "**the certified walk**",
}

Floats = NDArray[np.float64]
Rows = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A population of questions; arrays of shape (questions,)."""

    name: str
    averaged: bool
    ids: NDArray[np.object_]
    confidence: Floats
    small_correct: Floats
    large_correct: Floats
    small_cost: Floats
    large_cost: Floats
    fractions: Floats

    def drop_and_saving(self, threshold: Threshold) -> tuple[float, float]:
        """What keeping by this threshold does to the whole population."""
        if threshold is None:
            return 0.0, 0.0
        value, tied = threshold
        score = self.confidence
        kept = (score > value) | ((score == value) & (self.fractions <= tied))
        drop = float(((self.large_correct - self.small_correct) * kept).mean())
        return drop, float((self.large_cost[kept].sum() - self.small_cost.sum()) / self.large_cost.sum())


def cases(data: Path) -> list[Case]:
    hcma = _load(data / "hcma-cascades.jsonl.gz", lambda row: (row["dataset"], row["model"]))
    found = [
        _case(f"{dataset}: {small} → {large}", True, hcma[dataset, small], hcma[dataset, large], None)
        for dataset in ("mmlu", "gsm8k")
        for small, large in PAIRS
    ]
    by_setting = {
        name: _load(data / f"{name}.jsonl.gz", lambda row: (row["dataset"], row["model"], row["setting"]))
        for name in ("cotuq", "motcascade", "faithfulcot")
    }
    for dataset, (source, model, setting) in GPT4.items():
        small, large = (
            by_setting["cotuq"][dataset, "Llama-3.1-8B", "cot run 0"],
            by_setting[source][dataset, model, setting],
        )
        found += [
            _case(f"{dataset}: Llama-3.1-8B → gpt-4, {signal}", False, small, large, signal) for signal in SIGNALS
        ]
    llama2 = by_setting["motcascade"]["gsm8k", "llama-2-13b", "program prompt1 sampled"]
    gpt4 = by_setting["motcascade"]["gsm8k", "gpt-4", "cot prompt1 greedy"]
    return [*found, _case("gsm8k: llama-2-13b → gpt-4, agreement", False, llama2, gpt4, "agreement")]


def run(case: Case, *, draws: int, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    """One record for each rule, size and δ: the share of broken promises and the mean saving on the population."""
    rules = (*RULES, CERTIFIED)
    for n in SIZES:
        done: dict[tuple[str, float], list[tuple[float, float]]] = {(name, d): [] for name in rules for d in DELTAS}
        for _ in range(draws):
            rows = rng.integers(len(case.ids), size=n)
            sample = Sample.of(
                case.confidence[rows], case.small_correct[rows], case.large_correct[rows], case.ids[rows]
            )
            for (name, delta), results in done.items():
                if name in RULES:
                    threshold = _worthwhile(case, rows, RULES[name](sample, MAX_DROP, delta))
                else:
                    threshold = _certified(case, rows, delta)
                results.append(case.drop_and_saving(threshold))
        for (name, delta), results in done.items():
            broken = mean(drop > MAX_DROP + 1e-12 for drop, _ in results)
            saving = mean(saving for _, saving in results)
            yield {"case": case.name, "rule": name, "n": n, "delta": delta, "broken": broken, "saving": saving}


def _certified(case: Case, rows: NDArray[np.int64], delta: float) -> Threshold:
    done = certify(
        case.confidence[rows], case.small_correct[rows], case.large_correct[rows], case.ids[rows], max_drop=MAX_DROP,
        delta=delta, small_cost=case.small_cost[rows], large_cost=case.large_cost[rows],
    )  # fmt: skip
    return None if done.threshold is None else (done.threshold, done.tie_fraction)


def _worthwhile(case: Case, rows: NDArray[np.int64], threshold: Threshold) -> Threshold:
    """None for a threshold that saves nothing on the questions drawn."""
    if threshold is None:
        return None
    drawn = case.confidence[rows]
    kept = (drawn > threshold[0]) | ((drawn == threshold[0]) & (case.fractions[rows] <= threshold[1]))
    return threshold if case.large_cost[rows][kept].sum() > case.small_cost[rows].sum() else None


def best_saving(case: Case) -> float:
    """The most that a threshold on the confidence can save within 2 points, known the whole population."""
    path = walk(case.confidence, case.small_correct, case.large_correct, case.ids)
    saved = savings(path, case.small_cost, case.large_cost)
    assert saved is not None
    within = (path.harm - path.gain) / path.n <= MAX_DROP
    return max(0.0, float(saved[within].max(initial=0.0)))


def averaged_cells(record: Mapping[str, Any]) -> dict[str, dict[tuple[int, float], tuple[float, float]]]:
    """By rule, then by size and δ: mean saving and mean share of broken promises over the averaged cases."""
    averaged = {case["case"] for case in record["cases"] if case["averaged"]}
    cells: dict[str, dict[tuple[int, float], tuple[float, float]]] = {}
    for name in dict.fromkeys(one["rule"] for one in record["records"]):
        cells[name] = {}
        for n, delta in _COLUMNS:
            chosen = [r for r in _of(record["records"], name, n, delta) if r["case"] in averaged]
            cells[name][n, delta] = mean(r["saving"] for r in chosen), mean(r["broken"] for r in chosen)
    return cells


def table(record: Mapping[str, Any]) -> str:
    """Markdown: saving and broken promises in per cent; the worst case is over all of them."""
    best = mean(case["best"] for case in record["cases"] if case["averaged"])
    heads = [f"δ = {delta:g}, n = {n}" for n, delta in _COLUMNS]
    lines = [
        "| rule | " + " | ".join(heads) + f" | worst of {len(record['cases'])}, δ = {_WORST_DELTA:g}, n = 300 / 1000 |",
        "|---" * (len(heads) + 2) + "|",
        "| best any threshold could have |" + f" {100 * best:.1f} |" * len(heads) + " |",
    ]
    for name, of in averaged_cells(record).items():
        if name == COST_AWARE:
            continue
        shown = [f"{100 * saving:.1f} / {100 * broken:.1f}" for saving, broken in of.values()]
        worst = (max(r["broken"] for r in _of(record["records"], name, n, _WORST_DELTA)) for n in SIZES)
        shown.append(" / ".join(f"{100 * share:.0f}" for share in worst))
        if name == CERTIFIED:
            shown = [f"**{cell}**" for cell in shown]
        lines.append(f"| {_TITLES.get(name, name)} | {' | '.join(shown)} |")
    return "\n".join(lines)


def _of(records: list[dict[str, Any]], name: str, n: int, delta: float) -> list[dict[str, Any]]:
    return [r for r in records if (r["rule"], r["n"], r["delta"]) == (name, n, delta)]


def _load(path: Path, key: Callable[[Mapping[str, Any]], Any]) -> dict[Any, dict[str, Mapping[str, Any]]]:
    grouped: dict[Any, dict[str, Mapping[str, Any]]] = {}
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            grouped.setdefault(key(row), {})[row["id"]] = row
    return grouped


def _case(name: str, averaged: bool, small: Rows, large: Rows, signal: str | None) -> Case:
    """``signal=None`` takes the only one there is. Questions that one of the models lacks are left out."""
    ids = sorted(set(small) & set(large))

    def sure(row: Mapping[str, Any]) -> float:
        values = row.get("confidence") or {}
        value = next(iter(values.values()), None) if signal is None else values.get(signal)
        return float("nan") if value is None else min(1.0, max(0.0, value))

    return Case(
        name=name,
        averaged=averaged,
        ids=np.array(ids, dtype=object),
        confidence=np.array([sure(small[i]) for i in ids]),
        small_correct=np.array([float(small[i]["correct"] >= 0.5) for i in ids]),
        large_correct=np.array([float(large[i]["correct"] >= 0.5) for i in ids]),
        small_cost=np.array([small[i].get("cost_usd", 1.0) for i in ids]),
        large_cost=np.array([large[i].get("cost_usd", RATIO) for i in ids]),
        fractions=np.array([fraction(i) for i in ids]),
    )


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", type=Path, required=True, help="folder that holds outcomes/*.jsonl.gz")
    options.add_argument("--draws", type=int, default=400)
    options.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "certify_public.json")
    asked = options.parse_args()
    folder = asked.data / "outcomes"
    if not folder.is_dir():
        print(f"skipped: {folder} is not here; --data names the folder that holds outcomes/")
        return 0
    found = cases(folder)
    records: list[dict[str, Any]] = []
    for number, case in enumerate(found):
        records += run(case, draws=asked.draws, rng=np.random.default_rng([SEED, number]))
        print(f"{number + 1}/{len(found)} {case.name}, {len(case.ids)} questions", file=sys.stderr, flush=True)
    described = [
        {"case": c.name, "questions": len(c.ids), "averaged": c.averaged, "best": best_saving(c)} for c in found
    ]
    asked.out.parent.mkdir(exist_ok=True)
    record = {"draws": asked.draws, "cases": described, "records": records}
    asked.out.write_text(json.dumps(record, indent=1) + "\n")
    print(table(record))
    return 0


if __name__ == "__main__":
    sys.exit(main())
