"""Parts about real questions answered by the embedded models: sixty through a cascade, 900 by both tiers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.batch_real import THRESHOLDS
from bench.batch_real import table as table_of_sixty
from bench.parts.records import filled, listed, read, series
from bench.real_outcomes import TITLES

SIGNAL = "logprob"


def sixty(bench: Path) -> str:
    alone = {name: read(bench, f"gsm8k-60/{name}-only") for name in ("small", "large")}
    return table_of_sixty(alone, {t: read(bench, f"gsm8k-60/cascade-{t:.2f}") for t in THRESHOLDS})


def sixty_says(bench: Path) -> str:
    rows = read(bench, "gsm8k-60/rows")
    small, large = rows["small-only"], rows["large-only"]
    told = []
    for threshold in THRESHOLDS:
        of = rows[f"cascade-{threshold:.2f}"].values()
        answers = [row for row in of if not row["deferred"]]
        told.append(f"{_right(answers)} of {len(answers)} kept at {threshold:.2f}")
    highest = f"{THRESHOLDS[-1]:.2f}"
    deferred = {id: row for id, row in rows[f"cascade-{highest}"].items() if row["deferred"]}
    alike = sum(row["text"] == large[id]["text"] for id, row in deferred.items())
    either = sum(small[id]["right"] or large[id]["right"] for id in small)
    only_small = sum(small[id]["right"] and not large[id]["right"] for id in small)
    return listed([
        f"Right were {series(told)}; of all the small model's answers, {_right(small.values())} of {len(small)}.",
        f"Of the {len(deferred)} questions deferred at {highest} the large model answered {_right(deferred.values())} "
        f"right there, and {_right(large[id] for id in deferred)} when it was asked alone; {alike} of its texts were "
        "the same to the letter. Greedy answers are not the same from run to run: which questions are decoded together "
        "changes the last bits of llama.cpp's sums, and over some hundred tokens that is enough. So differences of a "
        "few answers between rows are noise, on top of the intervals.",
        f"A perfect confidence would keep just the small model's right answers: {either} of {len(small)} right, and "
        f"{_right(large.values())} by the large model alone; in {only_small} cases only the small one is right.",
    ])  # fmt: skip


def _right(rows: Any) -> int:
    return sum(row["right"] for row in rows)


def real(bench: Path) -> str:
    return "\n".join(real_tables(read(bench, "real_outcomes")))


def real_tables(record: dict[str, Any]) -> Iterator[str]:
    """Lines of both tables: the sets, and each signal on each of them."""
    yield "| questions | n | small alone | large alone | either is right | certified at 2 points, δ = 0.05 |"
    yield "|---|---|---|---|---|---|"
    for name, of in record.items():
        promised = of["promise"]
        certified = "nothing" if promised["threshold"] is None else f"{promised['expected_saving']:.1%} saved"
        oracle = f"{of['oracle']['accuracy']:.1%}"
        yield (
            f"| {TITLES[name]} | {of['n']} | {_with_interval(of['small'])} | {_with_interval(of['large'])} | {oracle} "
            f"| {certified} (`{of['chosen']}`, {promised['n']} questions) |"
        )
    yield ""
    yield "| signal | questions | AUROC | ECE | distinct | paper's rule: right, saving |"
    yield "|---|---|---|---|---|---|"
    for name, of in record.items():
        for signal, one in of["signals"].items():
            paper = one["paper"]
            yield (
                f"| `{signal}` | {TITLES[name]} | {_with_interval(one['auroc'], share=False)} "
                f"| {_with_interval(one['ece'], share=False)} | {one['distinct_values']:.0f} "
                f"| {paper['accuracy']:.1%}, {paper['saving']:+.1%} |"
            )


def real_says(bench: Path) -> str:
    record = read(bench, "real_outcomes")
    sets = list(record.values())
    oracle = series(f"{of['oracle']['saving']:.0%}" for of in sets)
    unknown = series(f"{1 - of['signals'][SIGNAL]['coverage']:.0%}" for of in sets)
    promises = [one for of in sets for one in of["certified"].values()]
    dear = next(key for key in promises[0] if key != "as_priced")
    as_priced, dearer = (sum(one[key]["threshold"] is not None for one in promises) for key in ("as_priced", dear))
    own = [of["signals"][SIGNAL] for of in sets]
    digits = [f"{of['signals']['verbalized_followup']['distinct_values']:.0f}" for of in sets]
    points = [
        f"With each of {len(sets[0]['certified'])} signals on each of {len(sets)} sets, all questions certifying, "
        f"something can be promised in {as_priced} of {len(promises)} cases; in {dearer} if the large model cost "
        f"{dear.split('_')[1]} times as much as the small one.",
        f"Its own likelihood (`{SIGNAL}`) ranks right above wrong answers with an AUROC of "
        f"{series(_with_interval(one['auroc'], share=False) for one in own)} on the three sets, and is off by "
        f"{series(format(100 * one['ece']['value'], '.0f') for one in own)} points (ECE).",
        f"Asked how sure it is (`verbalized`), it says one of {series(digits)} digits here; the mean over "
        "digits (`expected`) and P(True) are continuous.",
    ]
    head = (
        f"“Either is right” is what a perfect confidence would reach; it would save {oracle}. Confidence is unknown "
        f"for {unknown} of the answers (cut off at the token limit), and those are always deferred."
    )
    return f"{filled(head)}\n\n{listed(points)}"


def _with_interval(of: dict[str, Any], *, share: bool = True) -> str:
    if of["value"] is None:
        return "–"
    if of["low"] is None:
        return f"{of['value']:.1%}" if share else f"{of['value']:.2f}"
    if share:
        return f"{of['value']:.1%} ({of['low']:.0%}–{of['high']:.0%})"
    return f"{of['value']:.2f} ({of['low']:.2f}–{of['high']:.2f})"
