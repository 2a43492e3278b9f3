"""Are recent questions, and confidences in them, like those that certified? SciPy's tests, and how large the effect is.

Two-sample Kolmogorov–Smirnov for numbers, chi-square for shares; all tests together are at the given risk (Bonferroni).
With many questions every difference is significant, so each finding tells its effect: the largest distance between the
two distributions (0 to 1), or Cramér's V. Changes nothing, and says nothing about harm: that is the audit's. Needs the
extra ``evaluate``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy import stats

from corea.errors import InputError
from corea.evaluate.outcomes import CONFIDENCE, Outcomes
from corea.guards.domain import fit

#: A task that fewer questions name, in both together, is counted with the others: chi-square is no test for it.
_RARE = 10
#: Fewer questions than these say nothing.
_ENOUGH = 20
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Questions:
    """n questions: ``confidence`` and ``length`` (characters) of shape (n,), NaN where unknown; texts where known."""

    confidence: Floats
    tasks: tuple[str | None, ...]
    texts: tuple[str | None, ...]

    def __len__(self) -> int:
        return len(self.tasks)

    @property
    def known_texts(self) -> list[str]:
        return [text for text in self.texts if text is not None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """``p_value`` is corrected for the number of tests; ``differs``: at most alpha. ``before``, ``now``: in words."""

    what: str
    test: str
    effect: float
    p_value: float
    differs: bool
    before: str
    now: str


def compare(before: Questions, now: Questions, *, alpha: float = 0.01) -> tuple[Finding, ...]:
    """Every test that the data allow. Raises :class:`InputError` for too few questions on either side."""
    for name, side in (("certified", before), ("recent", now)):
        if len(side) < _ENOUGH:
            raise InputError(
                f"{len(side)} {name} questions say nothing about a distribution; it takes {_ENOUGH} or more: look "
                "further back with --since, or give more outcomes"
            )
    found = [
        _numbers("confidence", _known(before.confidence), _known(now.confidence)),
        _shares("unknown confidence", _unknown(before.confidence), _unknown(now.confidence)),
        _shares("tasks", Counter(map(str, before.tasks)), Counter(map(str, now.tasks))),
        *_of_texts(before.known_texts, now.known_texts),
    ]
    tested = [one for one in found if one is not None]
    corrected = [replace(one, p_value=min(1.0, one.p_value * len(tested))) for one in tested]
    return tuple(replace(one, differs=one.p_value <= alpha) for one in corrected)


def of_outcomes(outcomes: Outcomes, *, tier: str, signal: str, task: str | None = None) -> Questions:
    """The certifying questions. Raises :class:`InputError` for a tier or a signal that the outcomes lack."""
    if tier not in outcomes.tiers or signal not in outcomes.signals:
        raise InputError(
            f'the outcomes hold no confidence "{signal}" of tier "{tier}"; they hold {", ".join(outcomes.signals)} of '
            f"{', '.join(outcomes.tiers)}"
        )
    rows = outcomes.table.filter(pc.and_(pc.equal(outcomes.table["tier"], tier), pc.is_null(outcomes.table["error"])))
    columns = {name: rows[name].to_pylist() for name in ("task", "question", CONFIDENCE + signal)}
    triples = zip(columns[CONFIDENCE + signal], columns["task"], columns["question"], strict=True)
    return _questions(one for one in triples if task is None or one[1] == task)


def of_traffic(rows: Iterable[Mapping[str, Any]]) -> Questions:
    """From :func:`corea.ledger.audits.first_attempts`."""
    return _questions(
        (row["confidence"], row["task"], row["messages"][-1]["content"] if row["messages"] else None) for row in rows
    )


def _questions(triples: Iterable[tuple[float | None, str | None, str | None]]) -> Questions:
    found = list(triples)
    return Questions(
        confidence=np.array([np.nan if one is None else one for one, _, _ in found], dtype=np.float64),
        tasks=tuple(task for _, task, _ in found),
        texts=tuple(text for _, _, text in found),
    )


def _of_texts(before: Sequence[str], now: Sequence[str]) -> list[Finding | None]:
    if len(before) < _ENOUGH or len(now) < _ENOUGH:
        return []
    lengths = [np.array([float(len(text)) for text in side]) for side in (before, now)]
    # Each certifying question was scored against the others, so the two sides are alike where the questions are.
    domain = fit(before, data_hash="", created_at="")
    scores = np.array([domain.score(text) for text in now])
    return [
        _numbers("length", *lengths),
        _numbers("unlike certified", np.array(domain.scores), scores),
    ]


def _numbers(what: str, before: Floats, now: Floats) -> Finding | None:
    if len(before) < _ENOUGH or len(now) < _ENOUGH:
        return None
    found = stats.ks_2samp(before, now, method="asymp")
    return Finding(
        what=what, test="Kolmogorov-Smirnov", effect=float(found.statistic), p_value=float(found.pvalue),
        differs=False, before=f"median {np.median(before):.3g}", now=f"median {np.median(now):.3g}",
    )  # fmt: skip


def _shares(what: str, before: Counter[str], now: Counter[str]) -> Finding | None:
    """None where there is but one kind of question on both sides together."""
    total = before + now
    kinds = [name for name, number in total.items() if number >= _RARE]
    table = [[side[name] for name in kinds] for side in (before, now)]
    rest = [sum(side.values()) - sum(row) for side, row in zip((before, now), table, strict=True)]
    if sum(rest):
        table = [[*row, other] for row, other in zip(table, rest, strict=True)]
    if len(table[0]) < 2:
        return None
    found = stats.chi2_contingency(np.array(table), correction=False)
    # Cramér's V of a table with two rows.
    effect = float(np.sqrt(found.statistic / sum(total.values())))
    return Finding(
        what=what, test="chi-square", effect=effect, p_value=float(found.pvalue), differs=False,
        before=_most(before), now=_most(now),
    )  # fmt: skip


def _known(values: Floats) -> Floats:
    known: Floats = values[~np.isnan(values)]
    return known


def _unknown(values: Floats) -> Counter[str]:
    return Counter("unknown" if one else "known" for one in np.isnan(values))


def _most(side: Counter[str]) -> str:
    name, number = side.most_common(1)[0]
    return f"{name[:20]} {100 * number / sum(side.values()):.0f} %"
