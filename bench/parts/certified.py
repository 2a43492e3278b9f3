"""Parts about certificates on recorded outcomes of public models: pairs, and ladders of three."""

from __future__ import annotations

from pathlib import Path
from statistics import mean

from bench.certify_public import COST_AWARE, DELTAS, SIZES, averaged_cells, table
from bench.parts.records import filled, only, read

#: A third tier is of use where it saves a point more.
POINT = 0.01


def certificates(bench: Path) -> str:
    record = read(bench, "certify_public")
    cells = averaged_cells(record)
    averaged = sum(case["averaged"] for case in record["cases"])
    broken = [100 * share for _, share in cells["naive"].values()]
    method = (
        f"Questions are drawn {record['draws']} times from each case. Cells: mean saving, net of the small model's "
        "calls, and share of draws in which the promise was broken, in per cent, over "
        f"{averaged} cases (pairs of models on MMLU and GSM8K, costs as recorded); the last column is the worst case "
        f"of {len(record['cases'])}."
    )
    says = (
        "The naive rule saves more because it does not keep its promise: it is broken in "
        f"{min(broken):.0f} to {max(broken):.0f} % of the draws."
    )
    # It was measured once; a new run has no such rule.
    if COST_AWARE in cells:
        by_cost = ", ".join(f"{100 * saving:.1f}" for saving, _ in cells[COST_AWARE].values())
        says += (
            f" A walk ordered by (1 − confidence) ÷ cost of the small call saved {by_cost} % in these columns, no more "
            "than the certified walk, and is gone."
        )
    return f"{filled(method)}\n\n{table(record)}\n\n{filled(says)}"


def ladders(bench: Path) -> str:
    record = read(bench, "ladder_public")
    cases, n, delta = record["cases"], SIZES[-1], DELTAS[-1]
    better = sum(case["best_three"] - case["best_pair"] >= POINT for case in cases)
    rows = only(record["records"], n=n, delta=delta)
    ladder = mean(row["saving"] for row in only(rows, rule="ladder"))
    named = mean(
        max(row["saving"] for row in only(rows, case=case["case"]) if row["rule"].startswith("named")) for case in cases
    )
    return filled(
        "Within one family of models a third tier is seldom worth having: with the whole population known it saves a "
        f"point more in {better} of {len(cases)} cases; of the drawn questions (n = {n:,}) the better pair, named "
        f"beforehand, is certified to save {100 * named:.1f} %, and the best ladder, chosen on a third of them, "
        f"{100 * ladder:.1f} %."
    )
