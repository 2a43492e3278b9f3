"""The comparison with peers: what is asked of them, what is made of their replies, and that the page says what was run.

The packages themselves are not needed: stand-ins of a few lines take their place in a process of their own.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.certify_public import Case, best_saving
from bench.peers import automix, bargain, cascadeflow, litellm, ours, page, routellm
from bench.peers.__main__ import PACKAGES, measured
from bench.peers.cases import FAMILIES, OWN, Questions, Replies, own, splits
from bench.peers.decisions import Decisions, auroc, figures, masks, saved, tuned
from bench.peers.environments import Package, ask, installed
from corea.policy.ties import fraction

STAND_INS = {
    "bargain": (
        "BARGAIN/__init__.py",
        """
class Proxy:
    def __init__(self, verbose, max_workers): pass
class Oracle(Proxy): pass
class BARGAIN_A:
    def __init__(self, proxy, oracle, target, delta, verbose, seed):
        self.proxy, self.oracle = proxy, oracle
        assert (target, delta) == (0.98, 0.05)
    def process(self, records, return_oracle_usage):
        told = [(self.proxy.proxy_func(one), self.oracle.oracle_func(one, "small")) for one in records]
        used = [score < 0.5 or not good for (_, score), (good, _) in told]
        return records, used
""",
    ),
    "automix": (
        "automix/__init__.py",
        """
class Threshold:
    def __init__(self, num_bins): self.num_bins = num_bins
class Automix:
    def __init__(self, method, slm_column, llm_column, verifier_column, costs, verifier_cost):
        assert (slm_column, llm_column, costs[0]) == ("small", "large", verifier_cost)
        self.column = verifier_column
    def train(self, data): self.best = min(data[self.column])
    def infer(self, data): return [score <= self.best for score in data[self.column]]
""",
    ),
    "litellm": (
        "litellm/router_strategy/complexity_router/complexity_router.py",
        """
from types import SimpleNamespace
class ComplexityRouter:
    def __init__(self, model_name, ctx, derive_savings_baseline): pass
    def classify(self, text):
        return SimpleNamespace(value="SIMPLE" if len(text) < 12 else "COMPLEX"), len(text) / 100, []
""",
    ),
    "cascadeflow": (
        "cascadeflow/quality.py",
        """
from types import SimpleNamespace
class ProductionConfidenceEstimator:
    def __init__(self, provider): pass
    def estimate(self, response, query, temperature, finish_reason):
        return SimpleNamespace(final_confidence=len(response) / 10)
class QualityConfig:
    @classmethod
    def for_cascade(cls): return cls()
class QualityValidator:
    def __init__(self, config): assert config.enable_adaptive is False
    def validate(self, response, query, confidence): return SimpleNamespace(passed=confidence > 0.5)
""",
    ),
}
PANDAS = """
class Frame(dict):
    iloc = property(lambda self: Rows(self))
class Rows:
    def __init__(self, of): self.of = of
    def __getitem__(self, rows): return {key: [values[row] for row in rows] for key, values in self.of.items()}
DataFrame = Frame
"""


def a_case(n: int = 40, *, seed: int = 0) -> Case:
    """The surer, the more often right; a large call costs ten small ones."""
    rng = np.random.default_rng(seed)
    confidence = rng.random(n)
    return Case(
        name="a case",
        averaged=False,
        ids=np.array([f"q{i}" for i in range(n)], dtype=object),
        confidence=confidence,
        small_correct=(rng.random(n) < confidence).astype(np.float64),
        large_correct=(rng.random(n) < 0.8).astype(np.float64),
        small_cost=np.ones(n),
        large_cost=np.full(n, 10.0),
        fractions=np.array([fraction(f"q{i}") for i in range(n)]),
    )


def some_questions(n: int = 40) -> Questions:
    texts = [None if i == 0 else f"question {i}" + "?" * (i % 4) for i in range(n)]
    finishes = ["length" if i == 1 else "stop" for i in range(n)]
    replies = Replies(texts=["ok" * (i % 5) for i in range(n)], finishes=finishes)
    return Questions(family=OWN, case=a_case(n), texts=texts, replies=replies)


def stood_in(folder: Path, name: str, question: dict[str, Any]) -> dict[str, Any]:
    """The reply of the script, its package stood in for."""
    path, text = STAND_INS[name]
    files = {path: text, "pandas/__init__.py": PANDAS}
    for file, content in files.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(content)
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={folder} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return ask(python, name, question)


def test_bargain_is_paid_for_what_it_asks_and_places_are_rows_again(tmp_path: Path) -> None:
    one = some_questions()
    parts = splits(len(one), 3, np.random.default_rng(1))
    orders = np.array([np.arange(len(one))[::-1]])
    made = bargain.decided(
        [one], {one.name: parts}, {one.name: orders}, lambda asked: stood_in(tmp_path, "bargain", asked)
    )
    decisions, batches = made[one.name]
    good = (one.case.small_correct >= one.case.large_correct) & (one.case.confidence >= 0.5)
    assert (decisions.kept == (good & ~parts)).all()
    assert (batches[0] == good[::-1]).all()
    nothing = Decisions(method="", kept=np.zeros_like(parts), kind="batch")
    assert figures(one.case, parts, nothing).saving == pytest.approx(-0.1)


def test_automix_learns_from_the_calibration_part_and_decides_on_all(tmp_path: Path) -> None:
    one = some_questions()
    parts = splits(len(one), 2, np.random.default_rng(1))
    made = automix.decided([one], {one.name: parts}, lambda asked: stood_in(tmp_path, "automix", asked))[one.name]
    for kept, part in zip(made.kept, parts, strict=True):
        # Ranks among the calibration part: the least of them is one step up, and so is all that lies below the next.
        least = np.sort(one.case.confidence[part])[:2]
        assert (kept == (one.case.confidence >= least[1])).all()


def test_litellm_sees_the_question_only_and_what_is_unknown_goes_to_the_large_model(tmp_path: Path) -> None:
    one = some_questions()
    parts = splits(len(one), 2, np.random.default_rng(1))
    shipped, other = litellm.decided([one], {one.name: parts}, lambda asked: stood_in(tmp_path, "litellm", asked))[
        one.name
    ]
    simple = np.array([text is not None and len(text) < 12 for text in one.texts])
    assert (shipped.kept == simple).all()
    assert shipped.kind == other.kind == "router"
    assert shipped.score is not None
    assert math.isnan(shipped.score[0])
    assert not other.kept[:, 0].any()


def test_cascadeflow_is_given_replies_and_never_keeps_one_that_was_cut_off(tmp_path: Path) -> None:
    one = some_questions()
    parts = splits(len(one), 2, np.random.default_rng(1))
    silent = Questions(family=OWN, case=a_case(), texts=one.texts)
    assert cascadeflow.decided([silent], {}, lambda _: {"cases": {}}) == {}
    made = cascadeflow.decided([one], {one.name: parts}, lambda asked: stood_in(tmp_path, "cascadeflow", asked))
    shipped, other = made[one.name]
    assert one.replies is not None
    accepted = np.array([len(text or "") > 5 for text in one.replies.texts])
    accepted[:2] = False
    assert (shipped.kept == accepted).all()
    assert not other.kept[:, :2].any()


def test_a_peer_that_fails_is_an_error_and_not_an_empty_row(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexit 3\n")
    python.chmod(0o755)
    with pytest.raises(Exception, match="exit status 3"):
        ask(python, "bargain", {})


def test_an_environment_with_another_version_is_refused(tmp_path: Path) -> None:
    home = tmp_path / "numpy"
    (home / "bin").mkdir(parents=True)
    (home / "installed").touch()
    (home / "bin" / "python").symlink_to(sys.executable)
    with pytest.raises(RuntimeError, match="does not hold numpy==0; delete it"):
        installed(Package(name="numpy", version="0"), tmp_path)


@settings(deadline=None)
@given(st.integers(2, 60), st.integers(0, 99))
def test_every_split_halves_the_questions(n: int, seed: int) -> None:
    made = splits(n, 3, np.random.default_rng(seed))
    assert (made.sum(axis=1) == n // 2).all()


@settings(deadline=None)
@given(seed=st.integers(0, 999))
def test_the_naive_threshold_is_within_on_its_own_part_and_saves_there(seed: int) -> None:
    case = a_case(seed=seed)
    for part in splits(40, 2, np.random.default_rng(seed)):
        (kept,) = tuned(case, case.confidence, part[None])
        drop = ((case.large_correct - case.small_correct) * kept)[part].mean()
        assert drop <= 0.02 + 1e-9
        assert not kept.any() or saved(case, kept, part, "cascade") > 0


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 999))
def test_the_oracle_loses_nothing_and_a_router_is_never_dearer_than_a_cascade(seed: int) -> None:
    case = a_case(seed=seed)
    parts = splits(40, 2, np.random.default_rng(seed))
    made = {one.method: figures(case, parts, one) for one in ours.decided(case, parts, np.random.default_rng(seed))}
    assert made[ours.ORACLE].drop <= 0
    assert made[ours.ORACLE].within == 1
    kept = case.confidence > 0.5
    assert saved(case, kept, parts[0], "router") >= saved(case, kept, parts[0], "cascade")


def test_a_split_that_lost_too_much_saves_nothing_and_what_it_wasted_stays_wasted() -> None:
    case = a_case()
    parts = splits(40, 4, np.random.default_rng(2))
    all_kept = figures(case, parts, Decisions(method="", kept=np.ones_like(parts)))
    assert all_kept.drop > 0.02
    assert all_kept.saving == pytest.approx(0.9)
    assert all_kept.saving_within == all_kept.within == 0
    one_kept = masks([[0]] * 4, 40)
    wasted = figures(case, parts, Decisions(method="", kept=one_kept))
    assert wasted.saving_within <= wasted.saving + 1e-12
    assert wasted.saving_within < 0


def test_auroc_counts_ties_half_and_leaves_out_the_unknown() -> None:
    right = np.array([1.0, 0.0, 1.0, 0.0, 0.0])
    assert auroc(np.array([0.9, 0.1, 0.5, 0.5, np.nan]), right) == pytest.approx(0.875)
    assert auroc(np.array([0.9, np.nan, 0.5, np.nan, np.nan]), right) is None


def test_apgr_is_a_half_by_lot_and_cpt_is_read_off_between_points() -> None:
    straight = routellm.Curve(calls=np.array([0.0, 0.5, 1.0]), accuracy=np.array([0.2, 0.4, 0.6]), small=0.2, large=0.6)
    assert routellm.apgr(straight) == pytest.approx(0.5)
    assert [routellm.cpt(straight, share) for share in (0.2, 0.5, 0.8)] == pytest.approx([0.2, 0.5, 0.8])
    # The area of 0.2 to 0.6 at once, and then flat: three quarters.
    steep = routellm.Curve(calls=straight.calls, accuracy=np.array([0.2, 0.6, 0.6]), small=0.2, large=0.6)
    assert routellm.apgr(steep) == pytest.approx(0.75)
    no_gap = routellm.Curve(calls=straight.calls, accuracy=np.array([0.2, 0.4, 0.2]), small=0.2, large=0.2)
    assert routellm.apgr(no_gap) is routellm.cpt(no_gap, 0.5) is None


def test_a_curve_starts_at_the_small_model_and_ends_at_the_large_one() -> None:
    case = a_case(101)
    of = routellm.curve(case)
    assert (of.calls[0], of.calls[-1], len(of.calls)) == (0, 1, routellm.THRESHOLDS + 1)
    assert of.accuracy[0] == pytest.approx(case.small_correct.mean())
    assert of.accuracy[-1] == pytest.approx(case.large_correct.mean())


def test_our_own_outcomes_carry_the_replies_that_peers_read() -> None:
    for one in own():
        assert one.replies is not None
        assert len(one) == len(one.texts) == len(one.replies.texts) == 300
        assert sum(text is not None for text in one.texts) >= 200


def a_record() -> dict[str, Any]:
    """A whole run on one small case, its peers stood in for here."""
    one = some_questions()

    def kept(asked: dict[str, Any]) -> dict[str, Any]:
        of = asked["cases"][one.name]
        return {"cases": {one.name: {"tests": [[0]] * len(of["tests"]), "batches": [[0]] * len(of["batches"])}}}

    row = {"confidence": 0.5, "accepted": True}
    made = measured(
        [one],
        draws=3,
        peers={
            "bargain": kept,
            "automix": lambda asked: {"cases": {one.name: [[0, 1]] * len(asked["cases"][one.name]["draws"])}},
            "litellm": lambda asked: {"texts": [["SIMPLE", 0.1]] * len(asked["texts"])},
            "cascadeflow": lambda asked: {"cases": {name: [row] * len(of) for name, of in asked["cases"].items()}},
            "routellm": lambda asked: {"cases": {name: {"apgr": 0.5, "cpt": [0, 0, 0]} for name in asked["cases"]}},
        },
    )
    kept_record: dict[str, Any] = json.loads(json.dumps(made))
    return kept_record


def test_a_run_records_every_method_and_the_tables_show_them() -> None:
    record = a_record()
    methods = [row["method"] for row in record["records"]]
    assert len(methods) == len(set(methods)) == 10
    text = page.tables(record)
    for method in methods:
        assert f"\n| {method} | " in text
    assert not any(word in text for word in ("nan", "None", "TODO", "{"))
    assert record["versions"].keys() == {package.name for package in PACKAGES.values()}
    assert record["cases"][0]["best"] == best_saving(a_case())


def test_the_page_says_who_saves_more_and_who_kept_the_two_points() -> None:
    def row(method: str, saving: float, within: float) -> dict[str, Any]:
        base = {"family": OWN, "method": method, "drop": 0.0, "within_seen": 1.0, "oracle_saving": 0.5, "auroc": None}
        return base | {"saving": saving, "saving_within": saving * within, "within": within}

    rows = [row(ours.CERTIFIED, 0.3, 1.0), row("a", 0.4, 0.96), row("b", 0.6, 0.7), row("c", 0.5, 0.2)]
    told = page.wins({"delta": 0.05, "records": [*rows, row("d", 0.2, 1.0), row(ours.ORACLE, 0.9, 1.0)]}, OWN)
    assert len(told) == 3
    assert (
        told[0]
        == "a saves more: 40.0 % against 30.0 %, and is within 2 points in at least 96.0 % of each case's splits."
    )
    assert "30.0 % of the splits" in told[1]
    assert "still more (42.0 % against 30.0 %)" in told[1]
    assert "no more than COREA (10.0 % against 30.0 %)" in told[2]


def test_a_case_in_which_another_keeps_to_2_points_and_saves_more_is_named() -> None:
    def row(method: str, saving: float, within: float) -> dict[str, Any]:
        return {"family": OWN, "method": method, "case": "x", "saving": saving, "within": within}

    rows = [row(ours.CERTIFIED, 0.3, 1.0), row("a", 0.4, 0.95), row("b", 0.9, 0.94), row(ours.ORACLE, 0.9, 1.0)]
    told = page.better_cases({"delta": 0.05, "records": rows}, OWN)
    assert told == [
        "a saves more and is within 2 points in at least 95.0 % of the splits in x (40.0 % against 30.0 %)."
    ]


def test_a_score_that_ranks_better_than_ours_is_named_with_its_cases() -> None:
    def row(method: str, case: str, area: float | None) -> dict[str, Any]:
        return {"family": OWN, "method": method, "case": case, "auroc": area}

    rows = [row(ours.CERTIFIED, "x", 0.6), row(ours.CERTIFIED, "y", 0.8), row("a", "x", 0.7), row("a", "y", 0.7)]
    rows += [row("b", "x", None), row("c", "x", 0.6), row("a again", "x", 0.7)]
    assert page.better_ranked({"records": rows}, OWN) == [
        "The score of a ranks better than ours in x (0.70, ours 0.60)."
    ]


def test_the_page_names_every_family_and_version_that_was_measured() -> None:
    record = json.loads(page.RESULT.read_text(encoding="utf-8"))
    text = (Path(__file__).parents[2] / "docs" / "peers.md").read_text(encoding="utf-8")
    assert page.tables(record) in text
    assert {case["family"] for case in record["cases"]} == set(FAMILIES)
    for package in PACKAGES.values():
        assert record["versions"][package.name] == package.version
        assert f"{package.name} {package.version}" in text
