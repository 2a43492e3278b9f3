"""Where kept answers fail more often than elsewhere: by task, by length of the question, by a word in it.

Which slices are looked at is settled without a glance at what is right or wrong, and every look is paid for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import hypergeom, rankdata
from sklearn.feature_extraction.text import CountVectorizer

from corea.evaluate.outcomes import Floats, Strings
from corea.evaluate.report.figures import Slice, Slices

#: Family-wise: the chance of even one false slice among all that are looked at.
LEVEL = 0.05
#: A slice of fewer answers is not looked at: it could hardly be told from chance, and every look costs the others.
MIN_ANSWERS = 10
#: Words looked at, the most frequent first, of those that are in this share of the questions.
MAX_WORDS = 300
WORD_SHARE = (0.01, 0.5)

Masks = NDArray[np.bool_]
_WORD = r"(?u)\b[^\W\d_]{3,}\b"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    by: Literal["task", "length", "word"]
    name: str
    n: int
    wrong: int


def failing_slices(tasks: Strings, questions: Strings, wrong: Masks) -> Slices:
    """Slices of k kept answers whose share of wrong ones is significantly higher than that of the others.

    ``tasks``: (k,), None for none; ``questions``: (k,), or empty where there are no texts; ``wrong``: (k,). One-sided
    exact test, hypergeometric (Fisher 1935), with Holm's step-down correction (1979) over all slices.
    """
    k, failed = len(wrong), int(wrong.sum())
    note = None if len(questions) else "there are no question texts, so only tasks could be looked at"
    if k < 2 * MIN_ANSWERS:
        note = f"too few to tell: {k} answers, and each slice needs {MIN_ANSWERS}"
        return Slices(n=k, wrong=failed, looked_at=0, level=LEVEL, found=(), note=note)
    looks = [look for look in _looks(tasks, questions, wrong) if MIN_ANSWERS <= look.n < k]
    sizes, wrongs = (np.array([getattr(look, name) for look in looks], dtype=np.int64) for name in ("n", "wrong"))
    p_values = hypergeom.sf(wrongs - 1, k, failed, sizes) if looks else np.empty(0)
    adjusted = holm(p_values)
    found = [
        Slice(
            by=looks[i].by,
            name=looks[i].name,
            n=looks[i].n,
            wrong=looks[i].wrong,
            rate=looks[i].wrong / looks[i].n,
            rate_elsewhere=(failed - looks[i].wrong) / (k - looks[i].n),
            p_value=float(p_values[i]),
            adjusted_p_value=float(adjusted[i]),
        )
        for i in np.argsort(p_values, kind="stable")
        if adjusted[i] <= LEVEL
    ]
    return Slices(n=k, wrong=failed, looked_at=len(looks), level=LEVEL, found=tuple(found), note=note)


def holm(p_values: Floats) -> Floats:
    """Holm's adjusted p-values (1979), (m,): rejecting those ≤ α errs anywhere with probability at most α."""
    order = np.argsort(p_values, kind="stable")
    stepped = np.maximum.accumulate(p_values[order] * np.arange(len(order), 0, -1))
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(stepped, 1)
    return adjusted


def _looks(tasks: Strings, questions: Strings, wrong: Masks) -> Iterator[_Look]:
    for task in sorted({task for task in tasks if task is not None}):
        inside = tasks == task
        yield _Look(by="task", name=str(task), n=int(inside.sum()), wrong=int(wrong[inside].sum()))
    if not len(questions):
        return
    texts = ["" if question is None else str(question) for question in questions]
    yield from _by_length(np.array([len(text) for text in texts]), wrong)
    yield from _by_word(texts, wrong)


def _by_length(lengths: NDArray[np.int64], wrong: Masks) -> Iterator[_Look]:
    """Quarters, shortest first; questions of the same length stay together, where the middle one of them lies."""
    quarter = np.floor((rankdata(lengths) - 0.5) / len(lengths) * 4)
    for number in np.unique(quarter):
        inside = quarter == number
        name = f"{lengths[inside].min():,} to {lengths[inside].max():,} characters"
        yield _Look(by="length", name=name, n=int(inside.sum()), wrong=int(wrong[inside].sum()))


def _by_word(texts: list[str], wrong: Masks) -> Iterator[_Look]:
    rarest, commonest = WORD_SHARE
    least = max(MIN_ANSWERS, int(rarest * len(texts)))
    counter = CountVectorizer(
        binary=True, stop_words="english", token_pattern=_WORD, min_df=least, max_df=commonest, max_features=MAX_WORDS
    )
    try:
        found = counter.fit_transform(texts)
    except ValueError:
        # No word is frequent enough.
        return
    sizes = np.asarray(found.sum(axis=0)).ravel()
    wrongs = np.asarray(found[wrong].sum(axis=0)).ravel()
    for word, n, failed in zip(counter.get_feature_names_out(), sizes, wrongs, strict=True):
        yield _Look(by="word", name=str(word), n=int(n), wrong=int(failed))
