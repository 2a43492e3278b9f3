"""The gate on real outcomes of public models, beside the plain cascade and a router: what it saves, and its promise.

    python -m bench.gate_public --data DIR [--draws 10] [--out bench/results/gate_public.json]

Each case (a small model, a large one, a set of questions with the small model's confidence and both models' costs) is
drawn from several times: a third of n questions fits the gate, drawn without replacement; what it did not see is a
known population, from which the other two thirds are drawn with replacement to certify. What was certified is held to
its promise on that population: at most 2 points below the large model. So all savings, the population's and net of
every call, are at that accuracy. Rules:

- gate: no gate, a fixed cut or a walked one, decided on the third (``corea.evaluate.gates.search``);
- plain: the cascade without a gate, certified on the same questions as the gate;
- plain, all: the same, certified on all n questions, for a gate is fitted on some and a named signal needs none;
- router: the gate's chance alone, walked like a confidence; the small model is asked only to answer.

The kinds of gates, the share that fits and the margin were chosen on some of these cases, with other draws.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from corea.evaluate.certification import Terms, certified
from corea.evaluate.gates import Split, asks, chances, fit, search
from corea.evaluate.metrics import Settings
from corea.evaluate.outcomes import Floats, Outcomes, Pair, read
from corea.evaluate.pairs import pair_of
from corea.policy.certificate import Certified
from corea.policy.certify import certify
from corea.policy.gate import Gate
from corea.policy.ties import fraction

TERMS = Terms(max_drop=0.02, delta=0.05)
SIZES = (600, 1500)
SEED = 20_271
SIGNAL = "self_eval"
PAIRS = (
    ("llama3.2-1b", "llama3.1-405b"),
    ("llama3.2-3b", "llama3.1-8b"),
    ("llama3.2-3b", "llama3.1-70b"),
    ("llama3.2-3b", "gpt-4o"),
    ("llama3.1-8b", "llama3.1-70b"),
    ("llama3.1-8b", "llama3.1-405b"),
    ("gpt-4o-mini", "gpt-4o"),
    ("gpt-4o-mini", "llama3.1-70b"),
)
#: MMLU alone, and with GSM8K as traffic of two kinds.
SETS = {"mmlu": ("mmlu",), "mixed": ("mmlu", "gsm8k")}
RULES = ("gate", "plain", "plain, all", "router")
_FOREIGN = Outcomes(table=pa.table({}), metadata={"tiers": []})


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One rule on one case: mean saving, and the share of draws in which its promise was broken."""

    case: str
    rule: str
    n: int
    saving: float
    broken: float
    #: Of the draws: those with a gate, and with one whose cut was walked; then the mean share that it skips.
    gated: float | None = None
    walked: float | None = None
    skipped: float | None = None


def cases(data: Path) -> dict[str, Pair]:
    texts = {row["id"]: row["question"] for name in ("mmlu", "gsm8k-train", "gsm8k-test") for row in _rows(data / name)}
    by_model: dict[str, dict[str, Mapping[str, Any]]] = {}
    for row in _rows(data / "outcomes" / "hcma-cascades"):
        by_model.setdefault(row["model"], {})[row["id"]] = row
    found = {}
    for name, sets in SETS.items():
        for small, large in PAIRS:
            ids = sorted(id for id in by_model[small] if id in by_model[large] and id in texts)
            ids = [id for id in ids if by_model[small][id]["dataset"] in sets]
            found[f"{name}: {small} → {large}"] = _pair(ids, by_model, small, large, texts)
    return found


def run(case: str, everything: Pair, *, draws: int, rng: np.random.Generator) -> Iterator[Record]:
    for n in SIZES:
        done: dict[str, list[tuple[float, float]]] = {rule: [] for rule in RULES}
        kinds: list[tuple[bool, bool, float]] = []
        for _ in range(draws):
            order = rng.permutation(len(everything))
            fitting, others = order[: n // 3], order[n // 3 :]
            certifying = others[rng.integers(len(others), size=n - n // 3)]
            drawn = _at(everything, np.concatenate([fitting, certifying]))
            halves = Split(judged=drawn, signal=SIGNAL, fitting=np.arange(n) < n // 3)
            gate = fit(drawn.where(halves.fitting), _FOREIGN, tasks=everything.tasks, created_at="")
            found = search(halves, TERMS, gate, rng=rng.spawn(1)[0], settings=Settings(resamples=2))
            population = _at(everything, others)
            every = np.ones(len(population), dtype=bool)
            asked = every if found.gate is None else asks(found.gate, population)
            stated = population.confidence[SIGNAL]
            done["gate"].append(_truth(population, stated, found.certified, asked))
            done["plain"].append(_truth(population, stated, found.plain, every))
            done["plain, all"].append(_truth(population, stated, certified(drawn, SIGNAL, TERMS), every))
            done["router"].append(_routed(population, drawn.where(~halves.fitting), gate))
            kinds.append((found.gate is not None, found.kind == "walked", float(1 - asked.mean())))
        for rule, results in done.items():
            record = Record(
                case=case, rule=rule, n=n, saving=mean(saving for _, saving in results),
                broken=mean(drop > TERMS.max_drop + 1e-12 for drop, _ in results),
            )  # fmt: skip
            gated, walked, skipped = (float(mean(column)) for column in zip(*kinds, strict=True))
            yield replace(record, gated=gated, walked=walked, skipped=skipped) if rule == "gate" else record


def before_writing(folder: Path) -> dict[str, Any]:
    """What is known of our own outcomes before the small model writes: no signal; and what reading alone would cost."""
    told: dict[str, Any] = {}
    for file in sorted(folder.glob("*.parquet")):
        outcomes = read(file)
        pair, _ = pair_of(outcomes, drop_incomplete=True)
        rows = outcomes.table.filter(pc.equal(outcomes.table["tier"], pair.small))
        read_tokens, written = (pc.sum(rows[f"{name}_tokens"]).as_py() for name in ("prompt", "completion"))
        told[file.stem] = {
            "signals, all read after the answer": list(outcomes.signals),
            "prompt's share of the small model's tokens": read_tokens / (read_tokens + written),
            "small model's cost ÷ large model's": float(
                np.nansum(pair.small_cost_nano_usd) / np.nansum(pair.large_cost_nano_usd)
            ),
        }
    return told


def table(records: list[Record]) -> str:
    """Markdown: saving / broken promises in per cent, a line a case, then means over each set and over both.

    ``router better``: the cases in which the router saved more than the plain cascade on the same questions.
    """
    heads = [f"n = {n}: {rule}" for n in SIZES for rule in RULES]
    lines = ["| case | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    rows: dict[str, list[Record]] = {}
    for record in records:
        rows.setdefault(record.case, []).append(record)
    for case, of in rows.items():
        cells = []
        for one in of:
            extra = "" if one.gated is None else f" (gated {one.gated:.0%}, skips {one.skipped:.0%})"
            cells.append(f"{100 * one.saving:.1f} / {100 * one.broken:.0f}{extra}")
        lines.append(f"| {case} | " + " | ".join(cells) + " |")
    for name, chosen in groups(rows).items():
        cells = []
        for column in range(len(heads)):
            picked = [rows[case][column] for case in chosen[column // len(RULES)]]
            cells.append(
                f"{100 * mean(one.saving for one in picked):.1f} / {100 * mean(one.broken for one in picked):.1f}"
                if picked else "–"
            )  # fmt: skip
        lines.append(f"| **{name}** | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def groups(rows: Mapping[str, list[Record]]) -> dict[str, list[list[str]]]:
    """Names of cases whose mean is shown, for each size."""

    def better(of: list[Record], size: int) -> bool:
        saved = dict(zip(RULES, (one.saving for one in of[size * len(RULES) :]), strict=False))
        return saved["router"] > saved["plain"]

    sizes = range(len(SIZES))
    shown = {name: [[case for case in rows if case.startswith(name)] for _ in sizes] for name in SETS}
    shown["router better"] = [[case for case, of in rows.items() if better(of, size)] for size in sizes]
    shown["router worse"] = [[case for case, of in rows.items() if not better(of, size)] for size in sizes]
    return {**shown, "all": [list(rows) for _ in sizes]}


def _truth(population: Pair, stated: Floats, held: Certified, asked: Any) -> tuple[float, float]:
    """Drop and saving on the whole population."""
    if held.threshold is None:
        return 0.0, 0.0
    ties = np.array([fraction(str(text)) for text in population.questions])
    kept = asked & ((stated > held.threshold) | ((stated == held.threshold) & (ties <= held.tie_fraction)))
    large = population.large_cost_nano_usd
    saved = large[kept].sum() - population.small_cost_nano_usd[asked].sum()
    return float(((population.large_correct - population.small_correct) * kept).mean()), float(saved / large.sum())


def _routed(population: Pair, certifying: Pair, gate: Gate) -> tuple[float, float]:
    held = certify(
        chances(gate, certifying), certifying.small_correct,
        certifying.large_correct, certifying.questions, max_drop=TERMS.max_drop, delta=TERMS.delta,
        # It pays for the small model where it is kept only: the large model's cost is spared but for that.
        small_cost=np.zeros(len(certifying)),
        large_cost=np.maximum(certifying.large_cost_nano_usd - certifying.small_cost_nano_usd, 0),
    )  # fmt: skip
    score = chances(gate, population)
    kept = np.zeros(len(score), dtype=bool) if held.threshold is None else score >= held.threshold
    return _truth(population, score, held, kept)


def _at(pair: Pair, rows: Any) -> Pair:
    """These rows, in this order; a question may be among them more than once."""
    return replace(
        pair,
        ids=pair.ids[rows], tasks=pair.tasks[rows], questions=pair.questions[rows],
        small_correct=pair.small_correct[rows], large_correct=pair.large_correct[rows],
        small_cost_nano_usd=pair.small_cost_nano_usd[rows], large_cost_nano_usd=pair.large_cost_nano_usd[rows],
        confidence={name: stated[rows] for name, stated in pair.confidence.items()},
        signal_cost_nano_usd={name: cost[rows] for name, cost in pair.signal_cost_nano_usd.items()},
    )  # fmt: skip


def _rows(path: Path) -> Iterator[Mapping[str, Any]]:
    with gzip.open(f"{path}.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def _pair(
    ids: list[str],
    by_model: Mapping[str, Mapping[str, Mapping[str, Any]]],
    small: str,
    large: str,
    texts: Mapping[str, str],
) -> Pair:
    first, second = ([by_model[model][id] for id in ids] for model in (small, large))
    return Pair(
        small=small,
        large=large,
        ids=np.array(ids, dtype=object),
        tasks=np.array([row["dataset"] for row in first], dtype=object),
        small_correct=np.array([float(row["correct"] >= 0.5) for row in first]),
        large_correct=np.array([float(row["correct"] >= 0.5) for row in second]),
        small_cost_nano_usd=np.array([row["cost_usd"] * 1e9 for row in first]),
        large_cost_nano_usd=np.array([row["cost_usd"] * 1e9 for row in second]),
        confidence={SIGNAL: np.array([min(1.0, max(0.0, next(iter(row["confidence"].values())))) for row in first])},
        signal_cost_nano_usd={SIGNAL: np.zeros(len(ids))},
        questions=np.array([texts[id] for id in ids], dtype=object),
    )


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", type=Path, required=True, help="folder that holds question files and outcomes/")
    options.add_argument("--draws", type=int, default=10)
    options.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "gate_public.json")
    asked = options.parse_args()
    if not (asked.data / "outcomes").is_dir():
        print(f"skipped: {asked.data / 'outcomes'} is not here; --data names the folder that holds outcomes/")
        return 0
    started = time.process_time()
    found = cases(asked.data)
    records: list[Record] = []
    for number, (case, pair) in enumerate(found.items()):
        records += run(case, pair, draws=asked.draws, rng=np.random.default_rng([SEED, number]))
        print(f"{number + 1}/{len(found)} {case}, {len(pair)} questions", file=sys.stderr, flush=True)
    written = {
        "draws": asked.draws,
        "cpu_s": round(time.process_time() - started, 1),
        "questions": {case: len(pair) for case, pair in found.items()},
        "records": [asdict(record) for record in records],
        "before_writing": before_writing(Path(__file__).parent / "outcomes"),
    }
    asked.out.parent.mkdir(exist_ok=True)
    asked.out.write_text(json.dumps(written, indent=1, ensure_ascii=False) + "\n")
    print(table(records))
    return 0


if __name__ == "__main__":
    sys.exit(main())
