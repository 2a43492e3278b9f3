"""What else one could do with the same outcomes: bounds, every signal, a router that asks nobody, and two known rules.

Whatever is learned is learned on other questions than those it is scored on: folds by a hash of the question's id. All
intervals come from the same resamples, so two policies can be compared. Certifies nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, hstack
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from corea.errors import InputError
from corea.evaluate.curves import deferral_curve, oracle_kept
from corea.evaluate.maps import MIN_QUESTIONS, apply, fit_parameters, folds, logistic
from corea.evaluate.metrics import DEFAULT, Estimate, Indices, Resamples, Settings, check_correct, estimate_of, rank
from corea.evaluate.outcomes import Floats, Pair, Strings
from corea.policy.gate import shape

Family = Literal["bound", "signal", "router", "rule"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One way to answer all the questions; costs are a question's mean, ``saving`` is against the large model alone.

    ``threshold`` is None where there is none, or one a fold.
    """

    accuracy: Estimate
    cost_nano_usd: Estimate
    saving: Estimate
    deferral_rate: Estimate
    threshold: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """A policy with its points, strictest threshold first; none where it cannot be had, and ``note`` says why."""

    name: str
    family: Family
    signal: str | None = None
    points: tuple[Point, ...] = ()
    note: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """``points``: of a curve; ``epsilon``: accuracy that the naive rule may give up."""

    points: int = 21
    epsilon: float = 0.02
    folds: int = 5


def compare(
    pair: Pair, *, rng: np.random.Generator, options: Options | None = None, settings: Settings = DEFAULT
) -> tuple[Baseline, ...]:
    """Every baseline on the same questions. Raises :class:`InputError` for no questions."""
    check_correct(pair.small_correct)
    chosen = options or Options()
    priced = _Priced(pair=pair, resamples=Resamples(len(pair), rng=rng, count=settings.resamples), settings=settings)
    # Threads cost more than they give for products as small as these, and stall one another on a busy machine.
    with threadpool_limits(limits=1, user_api="blas"):
        signals = [baseline for signal in pair.confidence for baseline in _signal(priced, signal, chosen)]
        return (*_bounds(priced), _router(priced, chosen), *signals)


def router_scores(questions: Strings, correct: Floats, fold: Indices) -> Floats:
    """P(small model right) from a question's text alone, by logistic regression on the other folds: (n,).

    ``correct``: (n,), 0 to 1; ``fold``: (n,), the number of each question's fold.
    """
    texts = ["" if question is None else str(question) for question in questions]
    shapes = np.array([shape(text, most=None) for text in texts], dtype=np.float64)
    grams = HashingVectorizer(n_features=2**14, ngram_range=(1, 2)).transform(texts)
    scores = np.empty(len(texts))
    for number in np.unique(fold):
        held = fold == number
        # Cut off: one word of five thousand letters must not decide alone.
        scaled = np.clip(StandardScaler().fit(shapes[~held]).transform(shapes), -4, 4)
        features = hstack([csr_matrix(scaled), grams], format="csr")
        model = logistic(features[~held], correct[~held], penalty=1.0)
        scores[held] = correct[~held].mean() if model is None else model.predict_proba(features[held])[:, 1]
    return scores


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """What is done with each question, (n,) each: the share that is kept, and whether the small model is asked."""

    kept: Floats
    asked: Floats
    threshold: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Priced:
    """Outcomes with the resamples that every figure on them shares."""

    pair: Pair
    resamples: Resamples
    settings: Settings

    def points(self, plans: Sequence[_Plan]) -> tuple[Point, ...]:
        # A few plans at once: resampling is a matrix product, and a million questions must not fill the memory.
        step = max(1, 2**22 // len(self.pair))
        parts = [self._some(plans[at : at + step]) for at in range(0, len(plans), step)]
        return tuple(point for part in parts for point in part)

    def _some(self, plans: Sequence[_Plan]) -> list[Point]:
        pair = self.pair
        accuracy = [plan.kept * pair.small_correct + (1 - plan.kept) * pair.large_correct for plan in plans]
        cost = [self._cost(plan) for plan in plans]
        deferred = [1 - plan.kept for plan in plans]
        columns = np.column_stack([*accuracy, *cost, *deferred, pair.large_cost_nano_usd])
        unknown = np.isnan(columns).sum(axis=0)
        columns[:, unknown > 0] = 0
        drawn = self.resamples.means(columns)
        return [self._point(i, plan, len(plans), columns, drawn, unknown) for i, plan in enumerate(plans)]

    def _point(
        self, i: int, plan: _Plan, plans: int, columns: Floats, drawn: Floats, unknown: NDArray[np.intp]
    ) -> Point:
        at, n = i + plans, len(columns)

        def mean(column: int) -> Estimate:
            return estimate_of(float(columns[:, column].mean()), drawn[:, column], n, self.settings)

        saving = self._saving(columns[:, [at, -1]].mean(axis=0), drawn[:, [at, -1]], int(unknown[[at, -1]].max()))
        cost = _unknown(n, int(unknown[at])) if unknown[at] else mean(at)
        return Point(
            accuracy=mean(i),
            cost_nano_usd=cost,
            saving=saving,
            deferral_rate=mean(i + 2 * plans),
            threshold=plan.threshold,
        )

    def _cost(self, plan: _Plan) -> Floats:
        """A question's cost; that of a model which is not asked is not needed, so it may be unknown."""
        small = np.where(plan.asked > 0, plan.asked * self.pair.small_cost_nano_usd, 0.0)
        large = np.where(plan.kept < 1, (1 - plan.kept) * self.pair.large_cost_nano_usd, 0.0)
        return np.asarray(small + large)

    def _saving(self, means: Floats, drawn: Floats, unknown: int) -> Estimate:
        n = len(self.pair)
        if unknown:
            return _unknown(n, unknown)
        cost, large = means
        if not large:
            return Estimate(value=None, n=n, note="the large model costs nothing: no saving")
        ratios = np.divide(drawn[:, 0], drawn[:, 1], out=np.full(len(drawn), np.nan), where=drawn[:, 1] > 0)
        return estimate_of(float(1 - cost / large), 1 - ratios, n, self.settings)


def _bounds(priced: _Priced) -> list[Baseline]:
    """What needs no confidence. Random defers a share by lot: its expected line, the small model's cost included."""
    pair = priced.pair
    none, every = np.zeros(len(pair)), np.ones(len(pair))
    kept = oracle_kept(pair).astype(np.float64)
    plans = {
        "always small": [_Plan(kept=every, asked=every)],
        "always large": [_Plan(kept=none, asked=none)],
        "random": [_Plan(kept=every * share, asked=every) for share in np.linspace(0, 1, 11)],
        "oracle": [_Plan(kept=kept, asked=every)],
        "oracle router": [_Plan(kept=kept, asked=kept)],
    }
    return [Baseline(name=name, family="bound", points=priced.points(plan)) for name, plan in plans.items()]


def _curve(
    priced: _Priced, score: Floats, options: Options, *, small_first: bool
) -> tuple[tuple[Point, ...], str | None]:
    curve = deferral_curve(priced.pair, rank(score), small_first=small_first).thin(options.points)
    # NaN is below every threshold: unknown defers.
    keeps = [(score >= threshold).astype(np.float64) for threshold in curve.thresholds]
    every = np.ones(len(score))
    plans = [
        _Plan(kept=kept, asked=every if small_first else kept, threshold=float(threshold))
        for kept, threshold in zip(keeps, curve.thresholds, strict=True)
    ]
    return priced.points(plans), curve.note


def _signal(priced: _Priced, signal: str, options: Options) -> list[Baseline]:
    """The signal at many thresholds, and what each rule makes of it."""
    pair = priced.pair
    own = replace(priced, pair=pair.judged_by(signal))
    points, note = _curve(own, pair.confidence[signal], options, small_first=True)
    return [
        Baseline(name=signal, family="signal", signal=signal, points=points, note=note),
        _crossed(own, f"naive: {signal}", signal, options, _naive),
        _crossed(own, f"paper: {signal}", signal, options, _paper),
    ]


def _router(priced: _Priced, options: Options) -> Baseline:
    """Routes to the small model where P(small right) is high, and never asks it where it is low."""
    pair = priced.pair
    if not len(pair.questions):
        return Baseline(name="router", family="router", note="the outcomes hold no question texts")
    fold = folds(pair.ids, options.folds, salt="router")
    if _too_few(fold):
        return Baseline(name="router", family="router", note=_TOO_FEW)
    scores = router_scores(pair.questions, pair.small_correct, fold)
    points, note = _curve(priced, scores, options, small_first=False)
    return Baseline(name="router", family="router", points=points, note=note)


_Rule = Callable[[Pair, Pair, str, Options], _Plan]


def _crossed(priced: _Priced, name: str, signal: str, options: Options, rule: _Rule) -> Baseline:
    """A rule set on all folds but one and followed on that one, for each fold."""
    pair = priced.pair
    fold = folds(pair.ids, options.folds, salt="rule")
    if _too_few(fold):
        return Baseline(name=name, family="rule", signal=signal, note=_TOO_FEW)
    kept, asked = np.zeros(len(pair)), np.zeros(len(pair))
    for number in np.unique(fold):
        held = fold == number
        try:
            plan = rule(pair.where(~held), pair.where(held), signal, options)
        except InputError as exc:
            return Baseline(name=name, family="rule", signal=signal, note=str(exc))
        kept[held], asked[held] = plan.kept, plan.asked
    return Baseline(name=name, family="rule", signal=signal, points=priced.points([_Plan(kept=kept, asked=asked)]))


def _naive(past: Pair, new: Pair, signal: str, options: Options) -> _Plan:
    """The cheapest threshold that lost at most ``epsilon`` on past questions; the large model alone where that is."""
    curve = deferral_curve(past, rank(past.confidence[signal]))
    within = np.flatnonzero(curve.accuracy >= curve.large.accuracy - options.epsilon - 1e-9)
    # Costs fall along the curve, so the last one is the cheapest; the first one, +inf, is always within.
    last = within[-1]
    useless = last == 0 or (curve.saving is not None and curve.saving[last] <= 0)
    kept = (new.confidence[signal] >= (np.inf if useless else curve.thresholds[last])).astype(np.float64)
    return _Plan(kept=kept, asked=np.full(len(new), 0.0 if useless else 1.0))


def _paper(past: Pair, new: Pair, signal: str, options: Options) -> _Plan:
    """arXiv 2603.03752: keep where the Platt-calibrated P(right) reaches the large model's accuracy."""
    platt = fit_parameters("platt", past.confidence[signal][:, None], past.small_correct)
    sure = apply(platt, new.confidence[signal][:, None])
    return _Plan(kept=(sure >= past.large_correct.mean()).astype(np.float64), asked=np.ones(len(new)))


_TOO_FEW = f"fewer than {MIN_QUESTIONS} questions to learn from"


def _too_few(fold: Indices) -> bool:
    """True where leaving out the largest fold leaves too few."""
    return len(fold) - int(np.bincount(fold).max()) < MIN_QUESTIONS


def _unknown(n: int, unknown: int) -> Estimate:
    return Estimate(value=None, n=n, note=f"cost unknown for {unknown} of {n}")
