"""The tables of ``docs/peers.md``, and who wins where, from the record of one run. Measures nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from bench.parts.records import read
from bench.peers import bargain
from bench.peers.cases import FAMILIES
from bench.peers.ours import CERTIFIED, ORACLE

RESULT = Path(__file__).parents[1] / "results" / "peers.json"
Record = Mapping[str, Any]


def tables(record: Record) -> str:
    """All tables, and the list of wins."""
    return "\n".join(
        line
        for family in FAMILIES
        if any(case["family"] == family for case in record["cases"])
        for line in _family(record, family)
    ) + "\n".join(["", *_batch(record), *_routellm(record)])


def part(bench: Path) -> str:
    return tables(read(bench, "peers"))


def summary(record: Record, family: str) -> dict[str, dict[str, float | None]]:
    """By method: means over the cases of a family, the worst case's share of splits within, the oracle's share."""
    made: dict[str, dict[str, float | None]] = {}
    for method in dict.fromkeys(row["method"] for row in record["records"] if row["family"] == family):
        rows = [row for row in record["records"] if (row["family"], row["method"]) == (family, method)]
        keys = ("saving", "saving_within", "drop", "within", "within_seen")
        made[method] = {key: mean(row[key] for row in rows) for key in keys}
        made[method]["worst"] = min(row["within"] for row in rows)
        oracle = mean(row["oracle_saving"] for row in rows)
        made[method]["of_oracle"] = mean(row["saving"] for row in rows) / oracle if oracle > 0 else None
        known = [row["auroc"] for row in rows if row["auroc"] is not None]
        made[method]["auroc"] = mean(known) if known else None
    return made


def wins(record: Record, family: str) -> list[str]:
    """A sentence for each that saves more than COREA here, and what became of the 2 points."""
    found = summary(record, family)
    held, told = found.pop(CERTIFIED), []
    for method, one in found.items():
        if method == ORACLE or _of(one, "saving") <= _of(held, "saving"):
            continue
        more = f"{method} saves more: {_share(one['saving'])} against {_share(held['saving'])}"
        if _of(one, "worst") >= 1 - record["delta"]:
            told.append(f"{more}, and is within 2 points in at least {_share(one['worst'])} of each case's splits.")
            continue
        verdict = "still more" if _of(one, "saving_within") > _of(held, "saving_within") else "no more than COREA"
        told.append(
            f"{more}, but loses more than 2 points in {_share(1 - _of(one, 'within'))} of the splits "
            f"({_share(1 - _of(one, 'worst'))} in its worst case); with those counted as no saving, {verdict} "
            f"({_share(one['saving_within'])} against {_share(held['saving_within'])})."
        )
    return told


def better_cases(record: Record, family: str) -> list[str]:
    """A sentence for each that saves more than COREA in a case and is as good as always within 2 points there."""
    rows = [row for row in record["records"] if row["family"] == family]
    held = {row["case"]: row["saving"] for row in rows if row["method"] == CERTIFIED}
    told: dict[str, list[str]] = {}
    for row in rows:
        saving, mine = row["saving"], held[row["case"]]
        if row["method"] != ORACLE and row["within"] >= 1 - record["delta"] and saving > mine:
            told.setdefault(row["method"], []).append(f"{row['case']} ({_share(saving)} against {_share(mine)})")
    wanted = _share(1 - record["delta"])
    return [
        f"{method} saves more and is within 2 points in at least {wanted} of the splits in {'; '.join(cases)}."
        for method, cases in told.items()
    ]


def better_ranked(record: Record, family: str) -> list[str]:
    """A sentence for each score with a greater AUROC than ours, with the cases in which it has."""
    rows = [row for row in record["records"] if row["family"] == family and row["auroc"] is not None]
    held = {row["case"]: row["auroc"] for row in rows if row["method"] == CERTIFIED}
    told: dict[str, list[str]] = {}
    for row in rows:
        area, mine = row["auroc"], held[row["case"]]
        # Those that judge by our scores have our AUROC.
        if area > mine:
            told.setdefault(row["method"], []).append(f"{row['case']} ({area:.2f}, ours {mine:.2f})")
    # Two methods that judge by one score are named once.
    named = {"; ".join(cases): method for method, cases in reversed(told.items())}
    return [f"The score of {method} ranks better than ours in {cases}." for cases, method in reversed(named.items())]


def _family(record: Record, family: str) -> Iterator[str]:
    cases = [case for case in record["cases"] if case["family"] == family]
    best = mean(case["best"] for case in cases)
    sizes = sorted({case["questions"] for case in cases})
    count = f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,} to {sizes[-1]:,}"
    yield f"### {family}"
    yield ""
    yield f"{len(cases)} cases of {count} questions, half of which calibrate. The best threshold that anyone could"
    yield f"have, all questions known, saves {_share(best)}."
    yield ""
    yield (
        "| | saving | lost, points | within 2 points, of splits | worst case | as the test part shows it "
        "| saving, broken splits as 0 | of the oracle's saving | AUROC |"
    )
    yield "|---|---|---|---|---|---|---|---|---|"
    for method, one in summary(record, family).items():
        area = "–" if one["auroc"] is None else f"{one['auroc']:.2f}"
        keys = ("within", "worst", "within_seen", "saving_within", "of_oracle")
        cells = [_share(one["saving"]), _number(100 * _of(one, "drop")), *(_share(one[key]) for key in keys), area]
        yield f"| {method} | {' | '.join(cells)} |"
    yield ""
    told = [*wins(record, family), *better_cases(record, family), *better_ranked(record, family)]
    yield "**Where COREA is beaten here:**" if told else "**COREA is beaten by nobody here.**"
    yield ""
    yield from (f"- {sentence}" for sentence in told)
    yield ""


def _batch(record: Record) -> Iterator[str]:
    yield "### One batch, and nothing after it"
    yield ""
    yield "All questions of a case are answered once, and no threshold outlives them. What calibrates is part of the"
    yield "batch and is paid for: half of the questions, answered by both models, or those that BARGAIN asks about."
    yield ""
    yield f"| | {CERTIFIED.strip('*')}: saving / within | {bargain.METHOD}: saving / within |"
    yield "|---|---|---|"
    for family in _families(record):
        cells = []
        for method in (CERTIFIED, bargain.METHOD):
            rows = [row for row in record["one_batch"] if (row["family"], row["method"]) == (family, method)]
            cells.append(
                f"{_share(mean(row['saving'] for row in rows))} / {_share(mean(row['within'] for row in rows))}"
            )
        yield f"| {family} | {' | '.join(cells)} |"
    yield ""


def _routellm(record: Record) -> Iterator[str]:
    yield "### RouteLLM's evaluation of our scores"
    yield ""
    yield "| | APGR, our code | APGR, its package | largest difference | CPT(50 %) | CPT(80 %) |"
    yield "|---|---|---|---|---|---|"
    for family in _families(record):
        rows = [row for row in record["routellm"] if row["family"] == family and row["apgr"] is not None]
        if not rows:
            continue
        package = [row["package"]["apgr"] for row in rows]
        apart = max(abs(row["apgr"] - row["package"]["apgr"]) for row in rows)
        halves = [_share(mean(row["cpt"][at] for row in rows)) for at in (1, 2)]
        yield (
            f"| {family} | {mean(row['apgr'] for row in rows):.3f} | {mean(package):.3f} | {apart:.1e} "
            f"| {' | '.join(halves)} |"
        )
    yield ""
    differ = sum(_cpt_apart(row) for row in record["routellm"])
    yield f"CPT differs from the package's by more than its rounding in {differ} of {len(record['routellm'])} cases."


def _cpt_apart(row: Record) -> bool:
    pairs = zip(row["cpt"], row["package"]["cpt"], strict=True)
    return any(mine is not None and abs(mine - theirs) > 1e-4 for mine, theirs in pairs)


def _families(record: Record) -> Sequence[str]:
    return [family for family in FAMILIES if any(case["family"] == family for case in record["cases"])]


def _of(one: Mapping[str, float | None], key: str) -> float:
    value = one[key]
    assert value is not None
    return value


def _share(value: float | None) -> str:
    return "–" if value is None else f"{_number(100 * value)} %"


def _number(value: float) -> str:
    # Without the sign of a zero.
    return f"{round(value, 1) + 0.0:.1f}"
