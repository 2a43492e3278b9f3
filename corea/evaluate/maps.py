"""Fits confidence maps on some questions and checks them on others.

The maps themselves, and applying them, are in :mod:`corea.confidence.fitted`; here is what needs numpy. Which question
serves for what is decided by a hash of its id: the same in every run, whatever the order of the rows.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.sparse import issparse, vstack
from sklearn.exceptions import ConvergenceWarning
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from corea.confidence.fitted import CLIP, Combination, ConfidenceMap, Kind, Parameters, Sigmoid, Steps, Term
from corea.errors import InputError
from corea.evaluate.metrics import DEFAULT, Resamples, Settings, SignalMetrics, rank, signal_metrics
from corea.evaluate.outcomes import Floats, Pair, Strings

#: Fewer known confidences than this fit no map worth having.
MIN_QUESTIONS = 20
_LOG_TEMPERATURE = (-4.0, 6.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedMap:
    """A map, and what it does on the questions it was not fitted on.

    ``before``: each signal as it stands; ``after``: the map's confidence. ``note`` tells what a user should know.
    """

    map: ConfidenceMap
    before: Mapping[str, SignalMetrics]
    after: SignalMetrics
    n_check: int
    note: str | None = None


def fit(
    kind: Kind,
    pair: Pair,
    signals: Sequence[str],
    *,
    model: str,
    prompt: str,
    created_at: str,
    rng: np.random.Generator,
    share: float = 0.5,
    salt: str = "map",
    settings: Settings = DEFAULT,
) -> CheckedMap:
    """Fit a map of the small model's signals on ``share`` of the questions, and check it on the rest.

    ``model``, ``prompt``: the hashes it will hold for. Raises :class:`InputError` for a signal that the outcomes lack,
    for several signals where the kind takes one, or too few questions on either side.
    """
    for signal in signals:
        if signal not in pair.confidence:
            known = ", ".join(pair.confidence) or "none"
            raise InputError(f"the outcomes hold no confidence signal {signal!r}; they hold: {known}")
    if not len(pair):
        raise InputError("there are no questions to fit a map on; check the outcomes' file and its filters")
    fitting = split(pair.ids, share=share, salt=salt)
    columns = np.column_stack([pair.confidence[signal] for signal in signals]) if signals else np.empty((len(pair), 0))
    if fitting.all():
        raise InputError("no question is left to check the map on; lower share, or evaluate more questions")
    parameters = fit_parameters(kind, columns[fitting], pair.small_correct[fitting])
    fitted = ConfidenceMap(
        kind=kind,
        signals=tuple(signals),
        parameters=parameters,
        model=model,
        prompt=prompt,
        n=int(fitting.sum()),
        share=share,
        salt=salt,
        created_at=created_at,
    )
    check = ~fitting
    correct = pair.small_correct[check]
    resamples = Resamples(len(correct), rng=rng, count=settings.resamples)

    def measured(confidence: Floats) -> SignalMetrics:
        return signal_metrics(correct, rank(confidence), resamples, settings)

    return CheckedMap(
        map=fitted,
        before={signal: measured(pair.confidence[signal][check]) for signal in signals},
        after=measured(apply(parameters, columns[check])),
        n_check=len(correct),
        note=_note(parameters),
    )


def fit_parameters(kind: Kind, columns: Floats, correct: Floats) -> Parameters:
    """Parameters of a map, from signals (n, k) with NaN where unknown, and grades (n,), 0 to 1.

    Questions without any known signal are left out. Raises :class:`InputError` for fewer than ``MIN_QUESTIONS`` others,
    or for k ≠ 1 where the kind takes one signal.
    """
    if columns.shape[1] != 1 and (kind != "fitted" or not columns.shape[1]):
        raise InputError(f"a {kind} map reads one signal, not {columns.shape[1]}; use kind 'fitted' for several")
    known = ~np.isnan(columns).all(axis=1)
    if known.sum() < MIN_QUESTIONS:
        raise InputError(f"only {known.sum()} questions with a known confidence to fit on; {MIN_QUESTIONS} are needed")
    columns, correct = columns[known], correct[known]
    if kind == "platt":
        return _platt(columns[:, 0], correct)
    if kind == "temperature":
        return _temperature(columns[:, 0], correct)
    return _isotonic(columns[:, 0], correct) if kind == "isotonic" else _combination(columns, correct)


def apply(parameters: Parameters, columns: Floats) -> Floats:
    """The mapped confidence of many questions, (n, k) → (n,), NaN where unknown: what a map does one by one."""
    if isinstance(parameters, Steps):
        return np.where(np.isnan(columns[:, 0]), np.nan, np.interp(columns[:, 0], parameters.xs, parameters.ys))
    odds = log_odds(columns)
    if isinstance(parameters, Sigmoid):
        return _sigmoid(parameters.slope * odds[:, 0] + parameters.intercept)
    total = np.full(len(columns), parameters.intercept)
    for term, column in zip(parameters.terms, odds.T, strict=True):
        missing = np.nan if term.missing is None else term.missing
        total += np.where(np.isnan(column), missing, term.weight * ((column - term.mean) / term.deviation))
    return np.where(np.isnan(columns).all(axis=1), np.nan, _sigmoid(total))


def mapped(pair: Pair, fitted: ConfidenceMap) -> Pair:
    """The questions that the map was not fitted on, with its confidence as one more signal, ``fitted``.

    Raises :class:`InputError` for a signal that the outcomes lack, or where no question is left.
    """
    for signal in fitted.signals:
        pair.judged_by(signal)
    rest = pair.where(~split(pair.ids, share=fitted.share, salt=fitted.salt))
    if not len(rest):
        raise InputError("the map was fitted on every one of these questions; evaluate others")
    columns = np.column_stack([rest.confidence[signal] for signal in fitted.signals])
    costs = [rest.signal_cost_nano_usd.get(signal, np.zeros(len(rest))) for signal in fitted.signals]
    # A signal that is missing and of unknown cost is a call that failed, of which a cascade makes nothing either.
    failed = (np.isnan(columns) & np.isnan(np.column_stack(costs))).any(axis=1)
    confidence = np.where(failed, np.nan, _one_by_one(fitted.parameters, columns))
    return replace(
        rest,
        confidence={**rest.confidence, "fitted": confidence},
        signal_cost_nano_usd={**rest.signal_cost_nano_usd, "fitted": np.sum(costs, axis=0)},
    )


def _one_by_one(parameters: Parameters, columns: Floats) -> Floats:
    """What a cascade will compute, to the last bit, (n, k) → (n,): a threshold lies exactly on such a value.

    :func:`apply` is quicker, and now and then off by one unit in the last place.
    """
    rows = np.where(np.isnan(columns), None, columns.astype(object))  # type: ignore[call-overload]
    found = (parameters(row) for row in rows.tolist())
    return np.array([np.nan if value is None else value for value in found])


def split(ids: Strings, *, share: float, salt: str) -> NDArray[np.bool_]:
    """True for about ``share`` of the questions, by a hash of their ids: (n,)."""
    return _hashed(ids, salt) < share


def folds(ids: Strings, count: int, *, salt: str) -> NDArray[np.intp]:
    """Number, below ``count``, of the fold that each question belongs to, by a hash of its id: (n,)."""
    return (_hashed(ids, salt) * count).astype(np.intp)


def log_odds(values: Floats) -> Floats:
    """log(c / (1 − c)) with c kept ``CLIP`` away from 0 and 1; NaN stays."""
    clipped = np.clip(values, CLIP, 1 - CLIP)
    return np.asarray(np.log(clipped / (1 - clipped)))


def logistic(features: Any, correct: Floats, *, penalty: float) -> LogisticRegression | None:
    """Logistic regression on grades that may be fractions; None where all grades are one and the same 0 or 1.

    Each question enters as right with weight y and as wrong with weight 1 − y. ``features``: (n, p), dense or sparse.
    """
    if correct.min() == correct.max() and correct[0] in (0.0, 1.0):
        return None
    doubled = vstack([features, features], format="csr") if issparse(features) else np.vstack([features, features])
    labels = np.repeat([1, 0], len(correct))
    weights = np.concatenate([correct, 1 - correct])
    used = np.flatnonzero(weights)
    model = LogisticRegression(C=1 / penalty, max_iter=500)
    # On a busy machine BLAS threads wait for one another: a fit of one second was seen to take a hundred.
    with threadpool_limits(limits=1, user_api="blas"), warnings.catch_warnings():
        # A fit that stops early is still a fit, and is judged by its check.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(doubled[used], labels[used], sample_weight=weights[used])


def _platt(values: Floats, correct: Floats) -> Sigmoid:
    """Platt 1999, with his targets, (n₊ + 1)/(n₊ + 2) and 1/(n₋ + 2), that keep a perfect separation finite."""
    right = float(correct.sum())
    high, low = (right + 1) / (right + 2), 1 / (len(correct) - right + 2)
    model = logistic(log_odds(values)[:, None], low + (high - low) * correct, penalty=1e-6)
    slope = 0.0 if model is None else float(model.coef_[0, 0])
    if model is None or slope <= 0:
        # The signal is no better than none, or worse: every answer is as sure as the average one.
        share = (right + 1) / (len(correct) + 2)
        return Sigmoid(slope=0.0, intercept=float(np.log(share / (1 - share))))
    return Sigmoid(slope=slope, intercept=float(model.intercept_[0]))


def _temperature(values: Floats, correct: Floats) -> Sigmoid:
    """Guo et al. 2017: the T that makes σ(logit(c) / T) likeliest."""
    odds = log_odds(values)

    def loss(log_t: float) -> float:
        scaled = odds / np.exp(log_t)
        return float(np.mean(np.logaddexp(0, scaled) - correct * scaled))

    found = minimize_scalar(loss, bounds=_LOG_TEMPERATURE, method="bounded")
    return Sigmoid(slope=float(np.exp(-found.x)), intercept=0.0)


def _isotonic(values: Floats, correct: Floats) -> Steps:
    """Zadrozny and Elkan 2002. Fitted values are means of neighbours, so the Brier score cannot rise on these data."""
    model = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(values, correct)
    xs, ys = model.X_thresholds_, np.clip(model.y_thresholds_, 0, 1)
    return Steps(xs=tuple(map(float, xs)), ys=tuple(map(float, np.maximum.accumulate(ys))))


def _combination(columns: Floats, correct: Floats) -> Combination:
    """Logistic regression with a unit ridge penalty on standardised log-odds (0 where unknown) and missingness."""
    odds = log_odds(columns)
    missing = np.isnan(odds)
    means = np.array(
        [column[~gone].mean() if not gone.all() else 0.0 for column, gone in zip(odds.T, missing.T, strict=True)]
    )
    centred = np.where(missing, 0.0, odds - means)
    deviations = np.sqrt((centred**2).sum(axis=0) / np.maximum((~missing).sum(axis=0), 1))
    # A signal that never varies says nothing: its column is 0, whatever it is divided by.
    deviations[deviations < 1e-9] = 1.0
    model = logistic(np.hstack([centred / deviations, missing.astype(np.float64)]), correct, penalty=1.0)
    k = columns.shape[1]
    if model is None:
        # One rule of succession, or "right with certainty" would be the map's only word.
        share = (float(correct.sum()) + 1) / (len(correct) + 2)
        weights, intercept = np.zeros(2 * k), float(np.log(share / (1 - share)))
    else:
        weights, intercept = model.coef_[0], float(model.intercept_[0])
    terms = tuple(
        Term(
            mean=float(means[i]),
            deviation=float(deviations[i]),
            weight=float(weights[i]),
            missing=float(weights[k + i]) if missing[:, i].any() else None,
        )
        for i in range(k)
    )
    return Combination(intercept=intercept, terms=terms)


def _note(parameters: Parameters) -> str | None:
    flat = isinstance(parameters, Sigmoid) and parameters.slope == 0
    flat = flat or (isinstance(parameters, Steps) and parameters.ys[0] == parameters.ys[-1])
    return "the signal does not rise with being right: the map gives everyone the average" if flat else None


def _hashed(ids: Strings, salt: str) -> Floats:
    """A number in [0, 1) for each id, from the first 48 bits of SHA-256(salt:id)."""
    prefix = f"{salt}:"
    digests = b"".join(hashlib.sha256((prefix + str(one)).encode()).digest()[:6] + b"\0\0" for one in ids)
    # Big-endian, so the two zero bytes are the lowest.
    return np.asarray(np.frombuffer(digests, dtype=">u8") / 2.0**64, dtype=np.float64)


def _sigmoid(values: Floats) -> Floats:
    # No overflow: at most e⁻ˣ of the absolute value is taken.
    grown = np.exp(-np.abs(values))
    return np.asarray(np.where(values >= 0, 1, grown) / (1 + grown))
