"""Labelled questions → what recognises their tasks, and how sure it has to be. Asks no models."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from corea.batch.rows import Question
from corea.errors import InputError
from corea.policy.gate import PLACES, see
from corea.policy.tasks import Tasks

#: Of each task. Fewer say nothing of its words.
LEAST = 20
FOLDS = 5
_PENALTY = 0.1

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """``recognised``: the share of the questions that a task is named for, and ``right``: of those, named rightly; both
    on questions that the fit had not seen (five folds)."""

    tasks: Tasks
    recognised: float
    right: float


def fit(questions: Sequence[Question], *, precision: float, created_at: str) -> Made:
    """``precision``: of the questions that a task is named for, so many are to be named rightly.

    Raises :class:`InputError` for questions without a task, fewer than two tasks, or fewer than 20 of one.
    """
    names = _names(questions)
    labels = np.array([names.index(str(question.task)) for question in questions])
    features = _features(questions)
    foreseen = np.zeros((len(questions), len(names)))
    fold = np.random.default_rng(0).permutation(len(questions)) % FOLDS
    for number in range(FOLDS):
        foreseen[fold == number] = _fitted(features[fold != number], labels[fold != number]).predict_proba(
            features[fold == number]
        )
    likeliest = foreseen.argmax(axis=1)
    least = _least(foreseen.max(axis=1), likeliest == labels, precision)
    named = foreseen.max(axis=1) >= least
    model = _fitted(features, labels)
    weights, intercepts = _each(model)
    made = Tasks(
        names=tuple(names),
        intercepts=tuple(intercepts.tolist()),
        # As they will be in the file, of four bytes.
        words=tuple(tuple(row.astype(np.float32).astype(np.float64).tolist()) for row in weights),
        least=least,
        n=len(questions),
        created_at=created_at,
    )
    right = float((likeliest == labels)[named].mean()) if named.any() else 0.0
    return Made(tasks=made, recognised=float(named.mean()), right=right)


def _names(questions: Sequence[Question]) -> list[str]:
    if (unlabelled := next((question.id for question in questions if question.task is None), None)) is not None:
        raise InputError(f'"{unlabelled}" has no "task"; label it, or leave it out')
    counts = Counter(str(question.task) for question in questions)
    if len(counts) < 2:
        raise InputError("at least two tasks are needed to tell them apart; label questions of another one too")
    rare = min(counts, key=lambda name: counts[name])
    if counts[rare] < LEAST:
        raise InputError(f'the task "{rare}" has {counts[rare]} questions; label at least {LEAST}')
    return sorted(counts)


def _features(questions: Sequence[Question]) -> csr_matrix:
    places = [see(question.question).places for question in questions]
    starts = np.cumsum([0, *map(len, places)])
    columns = np.array([place for one in places for place in one], dtype=np.int64)
    values = np.array([weight for one in places for weight in one.values()], dtype=np.float64)
    return csr_matrix((values, columns, starts), shape=(len(questions), PLACES))


def _fitted(features: csr_matrix, labels: Ints) -> LogisticRegression:
    model = LogisticRegression(C=1 / _PENALTY, max_iter=300)
    with threadpool_limits(limits=1, user_api="blas"), warnings.catch_warnings():
        # A fit that stops early is still a fit, and is judged on other questions.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(features, labels)


def _each(model: LogisticRegression) -> tuple[Floats, Floats]:
    """Weights and intercepts of each task. Of two, scikit-learn keeps one row: log-odds, whose softmax is with 0."""
    if len(model.classes_) > 2:
        return model.coef_, model.intercept_
    return np.vstack([np.zeros(PLACES), model.coef_[0]]), np.array([0.0, model.intercept_[0]])


def _least(sure: Floats, right: NDArray[np.bool_], precision: float) -> float:
    """The lowest probability above which so many are right, but no less than an even chance.

    1 where none is, so that no task is ever named.
    """
    order = np.argsort(-sure, kind="stable")
    share = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    enough = np.flatnonzero(share >= precision)
    return max(0.5, float(sure[order][enough[-1]])) if len(enough) else 1.0
