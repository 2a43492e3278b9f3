"""The exact test against published values, a slow reference, full enumeration and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta as beta_distribution
from scipy.stats import binom

from corea.errors import InputError
from corea.policy import exact
from corea.policy.exact import BETA, first_failure, most_harm, p_value, passes, score
from corea.policy.power import about_needed, needed, power

REFERENCE = [
    (300, 2, 0, 0.02, -1.6496, 0.0612),
    (500, 4, 0, 0.02, -1.9166, 0.0291),
    (500, 6, 3, 0.02, -1.8878, 0.0296),
    (660, 7, 0, 0.02, -1.7238, 0.0481),
    (1000, 12, 0, 0.02, -1.8070, 0.0386),
    (1000, 25, 15, 0.02, -1.5084, 0.0670),
    (2000, 60, 35, 0.02, -1.5007, 0.0675),
    (1000, 5, 1, 0.01, -1.7930, 0.0364),
]


def slow_score(n: int, a: int, b: int, eps: float) -> float:
    """The statistic with the constrained maximum likelihood found by a search, not by a formula."""
    low, high = 0.0, (1 - eps) / 2
    for _ in range(200):
        left, right = low + (high - low) / 3, high - (high - low) / 3
        if _log_likelihood(n, a, b, left, eps) < _log_likelihood(n, a, b, right, eps):
            low = left
        else:
            high = right
    gain = (low + high) / 2
    return ((a - b) / n - eps) / math.sqrt((2 * gain + eps - eps**2) / n)


def _log_likelihood(n: int, a: int, b: int, gain: float, eps: float) -> float:
    total = 0.0
    for count, rate in ((a, gain + eps), (b, gain), (n - a - b, 1 - 2 * gain - eps)):
        if count:
            total += count * math.log(max(rate, 1e-300))
    return total


def slow_p_value(n: int, a: int, b: int, eps: float, rates: int = 41) -> float:
    """The definition: every outcome of the trinomial, whatever it costs."""
    observed = float(score(n, a, b, eps))
    tail = [
        (harm, gain)
        for gain in range(n + 1)
        for harm in range(n + 1 - gain)
        if float(score(n, harm, gain, eps)) <= observed + 1e-12 * max(1.0, abs(observed))
    ]
    low = 0.0 if b == 0 else float(beta_distribution.ppf(BETA / 2, b, n - b + 1))
    high = 1.0 if b == n else float(beta_distribution.ppf(1 - BETA / 2, b + 1, n - b))
    cap = (1 - eps) / 2
    worst = 0.0
    for root in np.linspace(math.sqrt(min(low, cap)), math.sqrt(min(high, cap)), rates):
        gain_rate = float(root**2)
        worst = max(worst, sum(_trinomial(n, harm, gain, gain_rate + eps, gain_rate) for harm, gain in tail))
    return min(1.0, worst + BETA)


def _trinomial(n: int, harm: int, gain: int, h: float, g: float) -> float:
    rest = n - harm - gain
    ways = math.lgamma(n + 1) - math.lgamma(harm + 1) - math.lgamma(gain + 1) - math.lgamma(rest + 1)
    return math.exp(ways) * h**harm * g**gain * max(0.0, 1 - h - g) ** rest


def size(n: int, gain_rate: float, eps: float, delta: float) -> float:
    """Exact probability of passing at the edge, where the drop is just ε."""
    return power(n, gain_rate + eps, gain_rate, eps, delta)


@pytest.mark.parametrize("n,a,b,eps,z,p", REFERENCE)
def test_reference_values_are_met_to_the_printed_digits(n: int, a: int, b: int, eps: float, z: float, p: float) -> None:
    assert round(float(score(n, a, b, eps)), 4) == z
    assert round(p_value(n, a, b, eps), 4) == p


@pytest.mark.parametrize("n,a,b,eps,z,p", REFERENCE)
def test_401_rates_give_what_41_give(
    n: int, a: int, b: int, eps: float, z: float, p: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exact, "RATES", 401)
    assert round(p_value.__wrapped__(n, a, b, eps), 4) == pytest.approx(p, abs=1e-4)


def test_the_tail_equals_full_enumeration_of_the_trinomial() -> None:
    for n, eps in ((1, 0.1), (2, 0.4), (7, 0.02), (12, 0.1), (20, 0.02)):
        for a in range(0, n + 1, max(1, n // 4)):
            for b in range(0, n + 1 - a, max(1, n // 3)):
                assert p_value(n, a, b, eps) == pytest.approx(slow_p_value(n, a, b, eps), abs=1e-7), (n, a, b, eps)


@given(st.integers(1, 400), st.data())
@settings(max_examples=60, deadline=None)
def test_score_equals_that_of_a_searched_maximum_likelihood(n: int, data: st.DataObject) -> None:
    b = data.draw(st.integers(0, n))
    a = data.draw(st.integers(0, n - b))
    eps = data.draw(st.sampled_from([0.005, 0.02, 0.1, 0.5]))
    assert float(score(n, a, b, eps)) == pytest.approx(slow_score(n, a, b, eps), abs=1e-5)


@pytest.mark.parametrize("n", [1, 7, 60, 300, 1000])
def test_score_rises_with_harm_and_falls_with_gain(n: int) -> None:
    harm, gain = np.meshgrid(np.arange(n + 1), np.arange(n + 1), indexing="ij")
    possible = harm + gain <= n
    for eps in (0.001, 0.02, 0.1, 0.5, 0.95):
        z = np.where(possible, score(n, harm, gain, eps), np.nan)
        assert np.nanmin(np.diff(z, axis=0), initial=1) > 0
        assert np.nanmax(np.diff(z, axis=1), initial=-1) < 0


@pytest.mark.parametrize("n,eps", [(5, 0.1), (60, 0.02), (150, 0.1), (300, 0.02)])
def test_more_harm_never_lowers_p_and_more_gain_never_raises_it(n: int, eps: float) -> None:
    harms, gains = min(n, 24), min(n, 20)
    p = np.array(
        [[p_value(n, a, b, eps) if a + b <= n else np.nan for b in range(gains + 1)] for a in range(harms + 1)]
    )
    assert np.nanmin(np.diff(p, axis=0)) >= 0
    assert np.nanmax(np.diff(p, axis=1)) <= 1e-12


@given(st.integers(1, 3000), st.floats(0.001, 0.3), st.data())
@settings(max_examples=60, deadline=None)
def test_p_value_is_a_probability_and_passing_agrees_with_it(n: int, eps: float, data: st.DataObject) -> None:
    b = data.draw(st.integers(0, min(n, 60)))
    a = data.draw(st.integers(0, min(n - b, 80)))
    p = p_value(n, a, b, eps)
    assert BETA <= p <= 1
    for delta in (0.05, 0.1):
        assert passes(n, a, b, eps, delta) == (p <= delta)


def test_recurrence_along_gains_equals_the_binomial_distribution_at_each(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [(300, 3, 2, 0.02), (5_000, 140, 60, 0.02), (100_000, 4_900, 3_000, 0.02), (1_000_000, 19_700, 12, 0.02)]
    quick = [p_value.__wrapped__(*case) for case in cases]

    def direct(
        n: int, gains: exact.Ints, most: exact.Ints, rows: exact.Ints, width: int, q: exact.Floats
    ) -> exact.Floats:
        columns = rows[:, None] + np.arange(width)
        return np.asarray(binom.cdf(most[columns], n - gains[columns], q))

    monkeypatch.setattr(exact, "_harm_cdf", direct)
    assert [p_value.__wrapped__(*case) for case in cases] == pytest.approx(quick, abs=1e-7)


@pytest.mark.parametrize("n", [300, 1000])
@pytest.mark.parametrize("delta", [0.05, 0.1])
def test_size_at_the_edge_never_exceeds_delta(n: int, delta: float) -> None:
    sizes = [size(n, gain_rate, 0.02, delta) for gain_rate in np.linspace(0, math.sqrt(50 / n), 40) ** 2]
    assert max(sizes) <= delta
    assert max(sizes) >= 0.95 * delta, "the test wastes none of its risk"


def test_simulated_false_certification_at_the_edge_is_at_most_delta() -> None:
    rng, runs, eps, delta = np.random.default_rng(1), 20_000, 0.02, 0.05
    for n in (300, 1000):
        table = np.array([most_harm(n, b, eps, delta) for b in range(130 if n == 1000 else 60)])
        rates = []
        for gain_rate in (0.0, 0.005, 0.02, 0.05, 0.08):
            counts = rng.multinomial(n, [gain_rate + eps, gain_rate, 1 - 2 * gain_rate - eps], size=runs)
            rates.append(float((counts[:, 0] <= table[counts[:, 1]]).mean()))
        assert max(rates) <= delta + 3 * math.sqrt(delta * (1 - delta) / runs)


@pytest.mark.parametrize(
    "harm_rate,gain_rate,wanted", [(0.01, 0, 0.81), (0.01, 0.005, 0.96), (0.02, 0.01, 0.55), (0.03, 0.02, 0.39),
                                   (0.03, 0.03, 0.81)]
)  # fmt: skip
def test_power_at_a_thousand_questions_is_as_published(harm_rate: float, gain_rate: float, wanted: float) -> None:
    assert power(1000, harm_rate, gain_rate, 0.02, 0.05) == pytest.approx(wanted, abs=0.03)


def test_a_hundred_and_fifty_questions_are_the_fewest_that_can_pass_at_two_points() -> None:
    assert not passes(149, 0, 0, 0.02, 0.05)
    assert passes(150, 0, 0, 0.02, 0.05)
    assert needed(0.0, 0.0, 0.02, 0.05) == 150


@pytest.mark.parametrize("harm_rate,gain_rate", [(0.005, 0.001), (0.015, 0.005)])
def test_needed_is_where_the_power_reaches_80_percent(harm_rate: float, gain_rate: float) -> None:
    count = needed(harm_rate, gain_rate, 0.02, 0.05)
    assert count is not None
    assert power(count, harm_rate, gain_rate, 0.02, 0.05) >= 0.8
    assert power(int(0.9 * count), harm_rate, gain_rate, 0.02, 0.05) < 0.8
    assert float(about_needed(harm_rate, gain_rate, 0.02, 0.05)) == pytest.approx(count, rel=0.15)


def test_no_number_of_questions_helps_where_the_drop_is_the_limit() -> None:
    assert needed(0.03, 0.01, 0.02, 0.05) is None
    assert needed(0.05, 0.01, 0.02, 0.05) is None


@given(st.integers(0, 2**32 - 1), st.sampled_from([150, 400, 2000]))
@settings(max_examples=40, deadline=None)
def test_blocks_and_table_stop_at_the_same_step_as_one_test_after_another(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    harm_rate, gain_rate = rng.uniform(0, 0.06), rng.uniform(0, 0.04)
    moves = rng.choice(3, size=n, p=[harm_rate, gain_rate, 1 - harm_rate - gain_rate])
    a, b = np.cumsum(moves == 0), np.cumsum(moves == 1)
    changed = np.flatnonzero(moves < 2)
    a, b = a[changed], b[changed]
    failed = [i for i in range(len(a)) if p_value(n, int(a[i]), int(b[i]), 0.02) > 0.1]
    expected = failed[0] if failed else len(a)
    assert first_failure(n, a, b, 0.02, 0.1) == expected
    if len(a):
        assert exact._first_by_blocks(n, a, b, 0.02, 0.1) == expected


def test_a_large_walk_stops_at_the_exact_step() -> None:
    rng, n = np.random.default_rng(3), 60_000
    moves = rng.choice(3, size=n, p=[0.045, 0.02, 0.935])
    a, b = np.cumsum(moves == 0), np.cumsum(moves == 1)
    changed = np.flatnonzero(moves < 2)
    a, b = a[changed], b[changed]
    stop = first_failure(n, a, b, 0.02, 0.05)
    assert 0 < stop < len(a)
    assert p_value(n, int(a[stop]), int(b[stop]), 0.02) > 0.05
    z = score(n, a[:stop], b[:stop], 0.02)
    # The surest failures, had there been any, are the steps of the highest score.
    for step in np.argsort(-z)[:40]:
        assert p_value(n, int(a[step]), int(b[step]), 0.02) <= 0.05


@pytest.mark.parametrize(
    "n,a,b,eps,said",
    [
        (0, 0, 0, 0.02, "at least one question"),
        (10, 0, 0, 0.0, "must lie between 0 and 1"),
        (10, 0, 0, 1.0, "must lie between 0 and 1"),
        (10, 0, 0, math.nan, "must lie between 0 and 1"),
        (10, -1, 0, 0.02, "must be ≥ 0"),
        (10, 6, 5, 0.02, "at most n = 10"),
    ],
)
def test_impossible_counts_and_limits_are_refused(n: int, a: int, b: int, eps: float, said: str) -> None:
    with pytest.raises(InputError, match=said):
        p_value(n, a, b, eps)


@pytest.mark.parametrize("delta", [0.0, 0.001, 1.0, math.nan])
def test_a_risk_outside_its_range_is_refused(delta: float) -> None:
    with pytest.raises(InputError, match="delta"):
        passes(300, 0, 0, 0.02, delta)


def test_extreme_counts_have_a_p_value() -> None:
    for n, a, b, eps in ((1, 0, 0, 0.02), (1, 1, 0, 0.02), (1, 0, 1, 0.02), (50, 50, 0, 0.5), (50, 0, 50, 0.5),
                         (50, 25, 25, 0.02), (103, 2, 0, 0.02 * 1.01)):  # fmt: skip
        assert 0 < p_value(n, a, b, eps) <= 1
    assert p_value(50, 50, 0, 0.02) == 1.0
