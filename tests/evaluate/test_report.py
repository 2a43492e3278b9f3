"""A report holds every figure, certifies one signal on questions that did not choose it, and says what it cannot."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corea.errors import InputError
from corea.evaluate.certification import Terms, certified, choose
from corea.evaluate.curves import curve_of
from corea.evaluate.maps import split
from corea.evaluate.metrics import Settings, measure
from corea.evaluate.outcomes import Outcomes, Pair
from corea.evaluate.report import Report, report, to_html, to_json
from corea.evaluate.report.assemble import MAX_GROUPS
from corea.evaluate.report.operation import naive_threshold

NAN = float("nan")
NONE = np.array([], dtype=object)
QUICK = Settings(resamples=50)


def pair_of(n: int, seed: int = 0, *, sharp: float = 1.0, signals: int = 1) -> Pair:
    """Two models on made-up sums. The first signal says how likely the small one is right; the others are noise."""
    rng = np.random.default_rng(seed)
    true = rng.beta(3, 1, n)
    small = (rng.random(n) < true).astype(float)
    noise = {f"noise_{i}": np.round(rng.random(n), 1) for i in range(1, signals)}
    return Pair(
        small="small",
        large="large",
        ids=np.array([f"q{i}" for i in range(n)], dtype=object),
        tasks=np.array([("sums", "stories", "proofs")[i % 3] for i in range(n)], dtype=object),
        domains=np.array([("math", "words")[i % 2] for i in range(n)], dtype=object),
        small_correct=small,
        large_correct=np.maximum(small * (rng.random(n) < 0.98), rng.random(n) < 0.8),
        small_cost_nano_usd=rng.integers(50, 150, n).astype(float),
        large_cost_nano_usd=rng.integers(800, 1200, n).astype(float),
        confidence={"sure": true**sharp, **noise},
        questions=np.array([f"What is {i} + {i % 7}?" for i in range(n)], dtype=object),
        answers=np.array([str(i) for i in range(n)], dtype=object),
        golds=np.array([str(i + i % 7) for i in range(n)], dtype=object),
    )


def report_of(pair: Pair, *, signal: str | None = None, max_drop: float = 0.02, delta: float = 0.05) -> Report:
    rng = np.random.default_rng(1)
    return report(
        pair, signal=signal, max_drop=max_drop, delta=delta, rng=rng, title="A test", source="made up", settings=QUICK
    )


def test_the_certificate_is_the_one_that_corea_certify_would_make() -> None:
    pair = pair_of(900, signals=3)
    outcomes = Outcomes(table=None, metadata={"tiers": ["small", "large"]})
    chosen = choose(pair, None, outcomes)
    found = report_of(pair)
    assert found.choice.how == "chosen"
    assert (found.choice.signal, found.choice.n) == (chosen.signal, chosen.chosen_on)
    assert found.certification.certified == certified(chosen.pair, chosen.signal, Terms(max_drop=0.02, delta=0.05))


def test_a_signal_is_chosen_on_other_questions_than_those_that_certify_it() -> None:
    pair = pair_of(900, signals=3)
    choosing = split(pair.ids, share=1 / 3, salt="signal")
    altered = replace(pair, small_correct=np.where(choosing, pair.small_correct, 0.0))
    found, other = report_of(pair), report_of(altered)
    # What the certifying questions say has no say in the choice.
    assert found.choice == other.choice
    assert found.certification.n == int((~choosing).sum())
    assert other.certification.certified is not None
    assert other.certification.certified.threshold is None


def test_a_named_signal_is_certified_on_all_questions() -> None:
    found = report_of(pair_of(600, signals=2), signal="noise_1")
    assert (found.choice.signal, found.choice.how, found.certification.n) == ("noise_1", "named", 600)


def test_a_signal_that_is_not_there_is_refused() -> None:
    with pytest.raises(InputError, match="hold no confidence signal 'luck'; they hold: sure"):
        report_of(pair_of(50), signal="luck")


def test_only_candidates_are_chosen_but_all_signals_have_figures() -> None:
    pair = pair_of(300, signals=3)
    found = report(
        pair, signal=None, candidates=("noise_1", "noise_2"), max_drop=0.02, delta=0.05,
        rng=np.random.default_rng(1), title="t", source="s", settings=QUICK,
    )  # fmt: skip
    assert found.choice.signal in ("noise_1", "noise_2")
    assert [signal.name for signal in found.signals] == ["sure", "noise_1", "noise_2"]


def test_the_certified_point_is_what_its_threshold_does_to_these_questions() -> None:
    pair = pair_of(900)
    found = report_of(pair)
    promised = found.certification.certified
    assert promised is not None
    assert promised.threshold is not None
    kept = pair.confidence["sure"] >= promised.threshold
    right = np.where(kept, pair.small_correct, pair.large_correct).mean()
    cost = (pair.small_cost_nano_usd + np.where(kept, 0, pair.large_cost_nano_usd)).sum()
    point = found.operation.point
    assert found.operation.by == "certified"
    assert (found.operation.kept, promised.kept) == (int(kept.sum()), int(kept.sum()))
    assert point.accuracy.value == pytest.approx(right)
    assert found.operation.drop.value == pytest.approx(pair.large_correct.mean() - right)
    assert point.saving.value == pytest.approx(1 - cost / pair.large_cost_nano_usd.sum())
    assert point.saving.value == pytest.approx(promised.expected_saving)
    assert found.costs.saved_nano_usd == pytest.approx(pair.large_cost_nano_usd.sum() - cost)


def test_ties_at_the_certified_threshold_are_split_as_the_certificate_says() -> None:
    pair = pair_of(900)
    pair = replace(pair, confidence={"sure": np.round(pair.confidence["sure"] * 4) / 4})
    found = report_of(pair)
    promised = found.certification.certified
    assert promised is not None
    assert 0 < promised.tie_fraction < 1
    assert found.operation.kept == promised.kept


def test_without_a_promise_the_naive_threshold_is_looked_at_and_called_so() -> None:
    pair = pair_of(120)
    found = report_of(pair)
    assert found.certification.certified is not None
    assert found.certification.certified.threshold is None
    assert found.operation.by == "naive"
    curve = curve_of(pair, "sure")
    within = curve.accuracy >= curve.large.accuracy - 0.02
    assert curve.saving is not None
    # No other threshold that stays within saves more.
    assert found.operation.point.saving.value == pytest.approx(curve.saving[within].max())
    assert "Nothing can be promised with these 120 questions" in found.headline[0]
    assert "promises nothing" in found.headline[-1]


def test_a_useless_signal_keeps_nothing_and_all_wrong_answers_are_shown() -> None:
    pair = pair_of(200)
    pair = replace(pair, small_correct=np.zeros(200), large_correct=np.ones(200))
    found = report_of(pair)
    assert (found.operation.by, found.operation.kept, found.costs.small_nano_usd) == ("none", 0, 0.0)
    assert found.operation.point.saving.value == 0
    assert (found.gallery.kept, found.gallery.wrong) == (200, 200)
    assert "ask large alone" in found.headline[-1]
    assert "Nothing is kept, so all of small’s answers are looked at" in to_html(found)


def test_grades_of_averaged_samples_certify_nothing_and_the_page_says_why() -> None:
    pair = pair_of(200)
    found = report_of(replace(pair, small_correct=pair.small_correct * 0.6 + 0.2))
    assert found.certification.certified is None
    assert found.certification.note is not None
    page = to_html(found)
    assert "must be 0 or 1 to certify" in page
    assert "Grades are averages of several attempts" in page


def test_what_signals_cost_is_in_the_costs() -> None:
    pair = replace(pair_of(600), signal_cost_nano_usd={"sure": np.full(600, 40.0)})
    found = report_of(pair)
    assert found.costs.small_nano_usd == pytest.approx(pair.small_cost_nano_usd.sum() + 600 * 40)
    unrecorded = replace(pair, confidence={"self_consistency": pair.confidence["sure"]}).judged_by("self_consistency")
    assert unrecorded.small_cost_nano_usd == pytest.approx(6 * pair.small_cost_nano_usd)


@pytest.mark.parametrize("unknown", ["small_cost_nano_usd", "large_cost_nano_usd"])
def test_unknown_costs_leave_deferral_in_their_place(unknown: str) -> None:
    pair = pair_of(600)
    blank = np.full(600, NAN)
    small = blank if unknown.startswith("small") else pair.small_cost_nano_usd
    large = blank if unknown.startswith("large") else pair.large_cost_nano_usd
    found = report_of(replace(pair, small_cost_nano_usd=small, large_cost_nano_usd=large))
    assert found.operation.by == "certified"
    assert found.operation.point.saving.value is None
    assert found.costs.saved_nano_usd is None
    assert "% of the questions" in found.headline[0]
    page = to_html(found)
    assert "Accuracy against deferral" in page
    assert "Nothing can be said about money: cost unknown for 600 of 600" in page


def test_a_few_unknown_costs_are_left_out_and_counted() -> None:
    pair = pair_of(600)
    costs = pair.small_cost_nano_usd.copy()
    costs[:6] = NAN
    found = report_of(replace(pair, small_cost_nano_usd=costs))
    assert found.costs.n == 594
    assert found.costs.large_alone_nano_usd == pytest.approx(pair.large_cost_nano_usd[6:].sum())
    assert found.frontier_note == "cost unknown for 6 of 600, left out"
    assert found.costs.note == found.frontier_note


def test_every_note_of_a_metric_is_on_the_page() -> None:
    pair = pair_of(100)
    confidence = pair.confidence["sure"].copy()
    confidence[:7] = NAN
    pair = replace(pair, small_correct=np.ones(100), confidence={"sure": confidence}, tasks=NONE, domains=NONE)
    found = report_of(pair)
    page = to_html(found)
    metrics = found.overall.signals["sure"]
    notes = {
        metrics.auroc.note, metrics.ece.note, metrics.brier.note, metrics.tie_rate.note, metrics.distinct_values.note,
        found.overall.small_pass_at_1.note, found.signals[0].area_under_frontier.note,
    }  # fmt: skip
    assert any(note and "nothing to rank" in note for note in notes)
    assert all(note.replace(" (7.0%)", "") in page.replace(" (7.0%)", "") for note in notes if note)


def test_without_signals_there_are_two_models_and_nothing_to_decide_by() -> None:
    found = report_of(replace(pair_of(80), confidence={}))
    assert found.choice.signal is None
    assert "no confidence signal" in found.headline[0]
    page = to_html(found)
    assert "There is no confidence signal, so there is nothing to draw." in page
    assert "80 questions" in page


def test_a_signal_that_is_never_known_is_no_ground_for_a_promise() -> None:
    found = report_of(replace(pair_of(80), confidence={"mute": np.full(80, NAN)}))
    assert found.certification.note == "mute is unknown for every question"
    assert found.headline[1] == "Mute is unknown for every question."
    assert "No confidence is known, so there is nothing to draw." in to_html(found)


def test_a_few_questions_of_a_task_are_too_few_to_tell() -> None:
    pair = pair_of(90)
    tasks = pair.tasks.copy()
    tasks[:5] = "rare"
    page = to_html(report_of(replace(pair, tasks=tasks)))
    assert "rare (5)" in page
    assert "Too few to tell, with fewer than 20 questions each" in page
    assert '<th scope="row">rare</th><td class="n">5</td><td class="n">too few to tell</td>' in page


def test_thousands_of_tasks_are_capped_with_a_remark() -> None:
    pair = pair_of(4000)
    found = report_of(replace(pair, tasks=np.array([f"task {i % 2000}" for i in range(4000)], dtype=object)))
    assert sum(group.by == "task" for group in found.groups) == MAX_GROUPS
    assert found.overall.n == 4000
    assert any(f"There are 2,000 tasks: the {MAX_GROUPS} largest" in note for note in found.notes)


def test_one_question_makes_a_report_too() -> None:
    found = report_of(pair_of(900).where(np.arange(900) == 3))
    assert "1 question" in to_html(found)
    assert found.overall.n == 1


def test_no_question_makes_none() -> None:
    with pytest.raises(InputError, match="no questions to evaluate"):
        report_of(pair_of(3).where(np.zeros(3, dtype=bool)))


def test_the_json_holds_every_figure_and_is_strict() -> None:
    pair = pair_of(300, signals=2)
    found = report_of(pair)
    text = json.dumps(to_json(found), allow_nan=False)
    plain = json.loads(text)
    (overall, *_) = measure(pair, rng=np.random.default_rng(1), settings=QUICK)
    assert plain["groups"][0]["small_pass_at_1"]["value"] == overall.small_pass_at_1.value
    assert plain["groups"][0]["signals"]["sure"]["auroc"]["value"] == overall.signals["sure"].auroc.value
    assert {one["by"] for one in plain["groups"]} == {"all", "task", "domain"}
    assert {one["name"] for one in plain["baselines"]} >= {"oracle", "router", "sure", "naive: sure", "paper: noise_1"}
    assert plain["costs"]["saved_nano_usd"] == found.costs.saved_nano_usd
    assert plain["certification"]["promise"] == found.certification.certified.promise  # type: ignore[union-attr]
    assert len(plain["gallery"]["shown"]) == len(found.gallery.shown)
    # The strictest threshold is above all confidences, which JSON has no number for.
    assert plain["baselines"][-1]["name"] == "paper: noise_1"
    assert next(one for one in plain["baselines"] if one["name"] == "sure")["points"][0]["threshold"] is None


def test_the_same_outcomes_make_the_same_page_to_the_letter() -> None:
    pair = pair_of(150)
    first, second = (report_of(pair) for _ in range(2))
    assert to_json(first) == to_json(second)
    assert to_html(first) == to_html(second)


rows = st.lists(
    st.tuples(
        st.sampled_from([0.0, 1.0]),
        st.sampled_from([0.0, 1.0]),
        st.sampled_from([NAN, 0.0, 0.5, 0.9, 1.0]),
        st.sampled_from([NAN, 0.0, 3.0]),
        st.sampled_from([None, "a", "b"]),
    ),
    min_size=1,
    max_size=40,
)


@given(drawn=rows, texts=st.booleans())
@settings(max_examples=15, deadline=None)
def test_any_outcomes_make_a_report_that_adds_up(
    drawn: list[tuple[float, float, float, float, str | None]], texts: bool
) -> None:
    small, large, confidence, cost, tasks = (list(column) for column in zip(*drawn, strict=True))
    n = len(drawn)
    pair = Pair(
        small="s",
        large="l",
        ids=np.array([f"q{i}" for i in range(n)], dtype=object),
        tasks=np.array(tasks, dtype=object),
        small_correct=np.array(small),
        large_correct=np.array(large),
        small_cost_nano_usd=np.array(cost),
        large_cost_nano_usd=np.full(n, 10.0),
        confidence={"c": np.array(confidence)},
        questions=np.array(["Why?"] * n, dtype=object) if texts else NONE,
    )
    found = report(
        pair, signal=None, max_drop=0.1, delta=0.2, rng=np.random.default_rng(0), title="t", source="s",
        settings=Settings(resamples=5),
    )  # fmt: skip
    json.dumps(to_json(found), allow_nan=False)
    operation = found.operation
    assert operation.kept <= np.count_nonzero(~np.isnan(pair.confidence["c"]))
    assert found.gallery.wrong <= found.gallery.kept
    tasked = [fate for fate in found.fates if fate.by == "task"]
    assert sum(fate.n for fate in tasked) == sum(task is not None for task in tasks)
    assert sum(fate.kept_wrong for fate in tasked) <= operation.kept_wrong
    naive = naive_threshold(pair, "c", 0.1)
    assert naive is None or np.count_nonzero(pair.confidence["c"] >= naive)
    saved = found.costs.saved_nano_usd
    value = operation.point.saving.value
    assert (value is None) == (saved is None or not found.costs.large_alone_nano_usd)
    if value is not None and saved is not None and found.costs.large_alone_nano_usd:
        assert value == pytest.approx(saved / found.costs.large_alone_nano_usd)
