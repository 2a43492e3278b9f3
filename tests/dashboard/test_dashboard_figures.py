"""Figures in plain Python agree with numpy's and with common sense."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corea.dashboard.charts import nice
from corea.dashboard.figures import Asked, Judgement, calibration_error, frontier, rate, reliability
from corea.dashboard.words import between, clipped, dollars, money, seconds, share, short
from corea.evaluate.curves import reliability as numpy_reliability
from corea.evaluate.metrics import rank

JUDGEMENTS = st.lists(
    st.builds(
        Judgement, confidence=st.floats(0, 1), correct=st.sampled_from([0.0, 0.5, 1.0]), told=st.booleans()
    )
)  # fmt: skip
ASKED = st.lists(
    st.builds(
        Asked, confidence=st.none() | st.floats(0, 1), kept_nano_usd=st.integers(0, 100),
        deferred_nano_usd=st.integers(100, 300), alone_nano_usd=st.integers(100, 200),
    )
)  # fmt: skip


@given(st.floats(0, 1), st.integers(1, 10**6))
def test_an_interval_holds_its_share_and_stays_within_0_and_1(p: float, n: int) -> None:
    found = rate(p * n, n)
    assert found is not None
    assert 0 <= found.low <= found.value <= found.high <= 1 + 1e-12


def test_the_interval_is_wilsons() -> None:
    found = rate(81, 263)
    assert found is not None
    assert (found.low, found.high) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert rate(0, 0) is None


@given(JUDGEMENTS)
def test_every_judgement_is_in_one_bin(judgements: list[Judgement]) -> None:
    bins = reliability(judgements)
    for told in (True, False):
        assert sum(one.right.n for one in bins if one.told is told) == sum(one.told is told for one in judgements)
    assert all(one.low_edge - 1e-9 <= one.confidence <= one.high_edge + 1e-9 for one in bins)


def test_bins_agree_with_those_of_evaluate() -> None:
    rng = np.random.default_rng(1)
    # Evaluate's bins hold their upper edge, ours their lower one: no value lies on an edge here.
    stated = (rng.integers(0, 1000, 500) + 0.5) / 1000
    right = (rng.random(500) < stated).astype(np.float64)
    theirs = numpy_reliability(right, rank(stated))
    ours = reliability(
        [Judgement(confidence=float(c), correct=float(y), told=True) for c, y in zip(stated, right, strict=True)]
    )
    assert [one.right.n for one in ours] == [one.n for one in theirs]
    assert [one.right.low for one in ours] == pytest.approx([one.low for one in theirs])
    assert [one.confidence for one in ours] == pytest.approx([one.confidence for one in theirs])
    ece = sum(one.n * abs(one.confidence - one.accuracy) for one in theirs) / 500
    assert calibration_error(ours) == pytest.approx(ece)


@given(ASKED, JUDGEMENTS)
def test_a_looser_threshold_never_keeps_less(asked: list[Asked], judgements: list[Judgement]) -> None:
    points = frontier(asked, judgements, least=1)
    assert len(points) <= 40
    kept = [point.kept for point in points]
    assert kept == sorted(kept)
    assert [point.threshold for point in points] == sorted((point.threshold for point in points), reverse=True)
    savings = [point.saving for point in points if point.saving is not None]
    # Here whatever is kept costs at most what it costs deferred.
    assert savings == pytest.approx(sorted(savings))


def test_a_point_says_what_its_threshold_would_have_done() -> None:
    asked = [
        Asked(confidence=0.9, kept_nano_usd=1, deferred_nano_usd=11, alone_nano_usd=10),
        Asked(confidence=0.5, kept_nano_usd=1, deferred_nano_usd=11, alone_nano_usd=10),
        Asked(confidence=None, kept_nano_usd=1, deferred_nano_usd=11, alone_nano_usd=10),
    ]
    judgements = [
        Judgement(confidence=0.95, correct=1.0, told=True),
        Judgement(confidence=0.6, correct=0.0, told=False),
    ]
    strict, loose = frontier(asked, judgements, least=1)
    assert (strict.threshold, strict.right.value, strict.told) == (0.9, 1.0, True)
    assert (loose.threshold, loose.right.value, loose.told) == (0.5, 0.5, False)
    assert (strict.kept, loose.kept) == pytest.approx((1 / 3, 2 / 3))
    assert strict.saving == pytest.approx(1 - 23 / 30)
    assert loose.saving == pytest.approx(1 - 13 / 30)
    assert len(frontier(asked, judgements, least=2)) == 1


@given(st.floats(-1e15, 1e15), st.floats(0, 1e15))
def test_an_axis_encloses_its_values_in_a_few_even_steps(low: float, length: float) -> None:
    ticks = nice(low, low + length)
    slack = 1e-6 * max(abs(low), abs(low + length), 1.0)
    assert 2 <= len(ticks) <= 8
    assert ticks[0] <= low + slack
    assert ticks[-1] >= low + length - slack


def test_figures_in_words() -> None:
    assert [money(one) for one in (None, 0, 12_300_000_000, -12_345_678, 63)] == [
        "–", "$0.00", "$12.30", "−$0.0123", "$0.000000063",
    ]  # fmt: skip
    assert dollars([427_000_000, -12_700_000, None]) == ["$0.4270", "−$0.0127", "–"]
    assert (share(0.333), share(-0.5, 0), seconds(0.32), seconds(71.0)) == (
        "33.3\u202f%",
        "−50\u202f%",
        "320\u202fms",
        "71\u202fs",
    )
    assert (short(1200), short(15_000), short(2_500_000)) == ("1,200", "15k", "2.5M")
    assert between(0.427, 0.536) == "42.7\u2060–\u206053.6"
    assert clipped("a  b\n c" + "x" * 100, 10) == "a b cxxxx…"
