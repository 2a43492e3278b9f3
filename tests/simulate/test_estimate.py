"""What was not asked is learned from what was: the right line, an honest interval, no more memory than needed."""

from __future__ import annotations

from random import Random

import pytest

from corea.simulate.estimate import Learned, Moments, Tokens, Total

KEY = ("t", "small", "large")


def noisy(n: int, seed: int, spread: float = 300.0) -> list[tuple[Tokens, float]]:
    rng = Random(seed)
    made = []
    for _ in range(n):
        tokens = (float(rng.randrange(50, 500)), float(rng.randrange(10, 90)))
        made.append((tokens, 1000 + 3 * tokens[0] + 7 * tokens[1] + rng.gauss(0, spread)))
    return made


def learned_of(seen: list[tuple[Tokens, float]], task: str = "t") -> Learned:
    learned = Learned()
    for tokens, cost in seen:
        learned.add(task, "large", cost, {"small": tokens})
    return learned


def test_least_squares_are_those_of_numpy() -> None:
    numpy = pytest.importorskip("numpy")
    seen = noisy(200, 1)
    moments = Moments()
    for tokens, cost in seen:
        moments.add(tokens, cost)
    design = numpy.array([[1.0, *tokens] for tokens, _ in seen])
    wanted, rest, *_ = numpy.linalg.lstsq(design, numpy.array([cost for _, cost in seen]), rcond=None)
    line = moments.line()
    assert (line.level, *line.slopes) == pytest.approx(tuple(wanted), rel=1e-4)
    assert line.spread == pytest.approx((rest[0] / 197) ** 0.5, rel=1e-5)


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    held = 0
    for seed in range(40):
        learned = learned_of(noisy(60, 2 * seed))
        truth = noisy(50, 2 * seed + 1)
        total = Total()
        for tokens, _ in truth:
            total.add_unknown(KEY, 0, tokens, 1)
        money = total.money([learned], seed=seed)
        held += money.low <= sum(cost for _, cost in truth) <= money.high
    assert held >= 34


def test_what_costs_the_same_each_time_has_no_scatter_but_is_an_estimate_all_the_same() -> None:
    total = Total()
    total.add_unknown(KEY, 0, (100.0, 20.0), 1)
    total.add(5)
    money = total.money([learned_of([((100.0, 20.0), 50.0)] * 40)], seed=0)
    assert (money.value, money.low, money.high) == (55, 55, 55)
    assert money.estimated
    assert not money.exact


def test_the_same_seed_gives_the_same_interval() -> None:
    learned = learned_of(noisy(40, 3))
    totals = []
    for _ in range(2):
        total = Total()
        total.add_unknown(KEY, 0, (100.0, 20.0), 1)
        totals.append(total.money([learned], seed=7))
    assert totals[0] == totals[1]
    assert totals[0].low < (totals[0].value or 0) < totals[0].high


def test_a_task_of_which_little_is_known_is_looked_up_among_all_tasks() -> None:
    learned = learned_of(noisy(30, 5), task="much")
    learned.add("little", "large", 1.0, {"small": (1.0, 1.0)})
    assert learned.key("much", "small", "large") == ("much", "small", "large")
    assert learned.key("little", "small", "large") == ("", "small", "large")
    assert learned.key("little", "other", "large") == ("", "", "large")
    assert learned.key("much", "small", "huge") is None


def test_tokens_that_never_vary_give_the_mean() -> None:
    learned = learned_of([((100.0, 20.0), float(cost)) for cost in (10, 20, 30) * 20])
    assert learned.line(KEY).at(1, (100.0, 20.0)) == pytest.approx(20)


def test_what_may_come_on_top_widens_the_interval_and_leaves_no_one_value() -> None:
    total = Total()
    total.add(100)
    total.add_open(up=30)
    total.add_open(down=5)
    money = total.money([], seed=0)
    assert (money.value, money.low, money.high) == (None, 95, 130)
