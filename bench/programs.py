"""Programs through the built-in pair: real outcomes of the tasks that ship, and what the signals are worth on them.

``python -m bench.programs WORK``: about a quarter of an hour on two quiet cores; WORK keeps the journal, and the same
command goes on where it stopped. Writes ``bench/outcomes/programs.parquet`` and ``bench/results/programs.json`` and
prints the table of ``docs/programs.md``. ``--figures`` only counts what is there; ``--rehearse`` asks scripted models
instead, in seconds, and keeps nothing. Programs that models wrote are run, shut in. Not part of ``make bench``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bench.parts.records import kept
from bench.parts.records import read as read_record
from bench.real_outcomes import OUTCOMES
from corea.confidence import Logprob
from corea.evaluate.baselines import Baseline, compare
from corea.evaluate.data import read_graded
from corea.evaluate.metrics import measure
from corea.evaluate.outcomes import Pair, read
from corea.evaluate.pairs import pair_of
from corea.evaluate.run import Plan, run
from corea.models.scripted import ScriptedModel, scripted_reply
from corea.prices import FixedPrice
from corea.samples import PROGRAMS
from corea.tier import Tier
from corea.types import Prompt, Reply

RESULTS = Path(__file__).parent / "results" / "programs.json"
MAX_DROP, SEED = 0.02, 0
SIGNALS = ("generated_tests", "logprob", "p_true", "verbalized_followup", "expected_followup")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path, nargs="?", default=Path("work-programs"))
    parser.add_argument("--figures", action="store_true", help="of the outcomes that are there")
    parser.add_argument("--rehearse", action="store_true", help="with scripted models")
    arguments = parser.parse_args()
    committed = OUTCOMES / "programs.parquet"
    if not arguments.figures:
        arguments.work.mkdir(parents=True, exist_ok=True)
    if arguments.rehearse:
        print("\n".join(table(figures(rehearsed(arguments.work / "rehearsal.parquet")))))
        return
    if not arguments.figures:
        made = arguments.work / committed.name
        if not made.exists() and committed.exists():
            shutil.copyfile(committed, made)
        command = ["eval", "run", "--data", "programs-sample", "--out", str(made), "--allow-code"]
        subprocess.run([sys.executable, "-m", "corea", *command], check=True)
        OUTCOMES.mkdir(exist_ok=True)
        shutil.copyfile(made, committed)
    found = figures(pair_of(read(committed), drop_incomplete=True)[0])
    RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print("\n".join(table(found)))


def figures(pair: Pair) -> dict[str, Any]:
    """Pass@1 of both, and of each signal its AUROC, how often it is known, and what it saves."""
    overall = measure(pair, rng=np.random.default_rng(SEED))[0]
    baselines = {one.name: one for one in compare(pair, rng=np.random.default_rng(SEED))}
    large = overall.large_pass_at_1.value
    return {
        "n": len(pair),
        "small": pair.small,
        "large": pair.large,
        "small_pass_at_1": _told(overall.small_pass_at_1),
        "large_pass_at_1": _told(overall.large_pass_at_1),
        "oracle_saving": baselines["oracle"].points[0].saving.value,
        "signals": {
            name: {
                "auroc": _told(overall.signals[name].auroc),
                "coverage": overall.signals[name].coverage.value,
                "distinct_values": overall.signals[name].distinct_values.value,
                "hindsight": _in_hindsight(baselines[name], large),
                "naive": _of(baselines[f"naive: {name}"]),
            }
            for name in SIGNALS
            if name in overall.signals
        },
        "all_tests_agree": _all_agree(pair),
    }


def part(bench: Path) -> str:
    """The figures for docs/programs.md, nothing before the first run."""
    return "\n".join(table(read_record(bench, "programs"))) if kept(bench, "programs") else ""


def table(found: dict[str, Any]) -> Iterator[str]:
    """Markdown, as in docs/programs.md."""
    small, large = found["small_pass_at_1"], found["large_pass_at_1"]
    yield f"{found['n']} tasks, {found['small']} → {found['large']}: pass@1 {_range(small)} → {_range(large)}"
    yield ""
    yield "| signal | AUROC | known | values | saving in hindsight | saving, points lost, threshold set on others |"
    yield "|---|---|---|---|---|---|"
    for name, one in found["signals"].items():
        best, naive = one["hindsight"], one["naive"]
        hindsight = "–" if best is None else f"{best['saving']:.1%}"
        chosen = "–" if naive is None else f"{naive['saving']:.1%}, {100 * (large['value'] - naive['accuracy']):.1f}"
        values = one["distinct_values"]
        yield f"| `{name}` | {_range(one['auroc'])} | {one['coverage']:.0%} | {values:.0f} | {hindsight} | {chosen} |"
    yield ""
    kept = found["all_tests_agree"]
    yield (
        f"Where all generated tests agree: {kept['kept']} tasks, {kept['right']} of them right; "
        f"the large model has {kept['large_right']} right there."
    )


def _told(estimate: Any) -> dict[str, Any]:
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high, "note": estimate.note}


def _range(told: dict[str, Any]) -> str:
    if told["value"] is None:
        return "–"
    return f"{told['value']:.2f}" + ("" if told["low"] is None else f" ({told['low']:.2f} to {told['high']:.2f})")


def _in_hindsight(curve: Baseline, large: float | None) -> dict[str, Any] | None:
    """The most saving of all thresholds that lose no more than allowed on these very tasks: what no rule can beat."""
    allowed = [
        point
        for point in curve.points
        if large is not None and point.accuracy.value is not None and point.accuracy.value >= large - MAX_DROP - 1e-9
    ]
    best = max(allowed, key=lambda point: point.saving.value or -1.0, default=None)
    return None if best is None else {"saving": best.saving.value, "accuracy": best.accuracy.value}


def _of(rule: Baseline) -> dict[str, Any] | None:
    if not rule.points:
        return None
    point = rule.points[0]
    return {"saving": point.saving.value, "accuracy": point.accuracy.value, "deferral_rate": point.deferral_rate.value}


def _all_agree(pair: Pair) -> dict[str, int]:
    kept = pair.confidence["generated_tests"] >= 1.0
    right = pair.small_correct[kept].sum()
    return {"kept": int(kept.sum()), "right": int(right), "large_right": int(pair.large_correct[kept].sum())}


# Rehearsal ------------------------------------------------------------------------------------------------------------


def rehearsed(out: Path) -> Pair:
    """Outcomes of scripted models: a small one that is wrong on every second task, and writes tests that are right."""
    small, large = _scripted("small", wrong=True), _scripted("large", wrong=False)
    tiers = [
        Tier(name="small", model=small, estimator=Logprob(), threshold=0.5, price=FixedPrice.per_million(1, 1)),
        Tier(name="large", model=large, price=FixedPrice.per_million(10, 10)),
    ]
    plan = Plan(questions=read_graded([PROGRAMS]), tiers=tiers, out=out, allow_code=True)
    asyncio.run(run(plan, on_start=lambda total, done: None, on_row=lambda row: None))
    return pair_of(read(out))[0]


def _scripted(name: str, *, wrong: bool) -> ScriptedModel:
    tasks = {row["question"]: row for row in map(json.loads, PROGRAMS.read_text(encoding="utf-8").splitlines())}

    def answer(prompt: Prompt, index: int) -> Reply:
        last = prompt.messages[-1].content
        task = next((row for question, row in tasks.items() if question.strip() in last), None)
        if task is None:
            return scripted_reply("7", distribution={"7": 0.7, "True": 0.3})
        if "Do not solve the task" in last:
            tests = task["answer"].replace("candidate(", f"{_name(task)}(")
            return scripted_reply(f"```python\n{tests}```")
        mistaken = wrong and int(task["id"][-1]) % 2 == 1
        return scripted_reply(f"```python\n{task['wrong' if mistaken else 'solution']}```")

    return ScriptedModel(name, replies=answer)


def _name(task: dict[str, Any]) -> str:
    return str(task["answer"].rpartition("check(")[2].partition(")")[0])


if __name__ == "__main__":
    main()
