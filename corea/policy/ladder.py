"""Ladders of two and more tiers, certified as a whole: "at most ε of the last tier's accuracy is lost".

A ladder hands out the answer of the first tier that is sure enough, else the last tier's. Against the last tier alone,
a question is harm (1), gain (−1) or neither (0), whichever tier answered it, so for one fixed ladder the exact test
holds as it does for two tiers. Ladders are tested along a *path*: a list of threshold vectors, from keeping next to
nothing to keeping all. The first failure ends it for good, and no correction is due, whatever the order of the list:
to certify a ladder that loses too much, the first such ladder of the list must have passed its own test (fixed-sequence
testing, Angelopoulos et al. 2021, *Learn then Test*). This needs a list that was fixed on other questions than those
that certify, and no more: harm may rise and fall along it, as it does where one tier takes over from another.

Knows no files, no signals, and not which tiers to take.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from corea.errors import InputError
from corea.policy.certificate import Certified
from corea.policy.certify import USEFUL_SHARE, certify, checked
from corea.policy.exact import p_value, passes, score
from corea.policy.ladder_certificate import CertifiedLadder, Rung
from corea.policy.power import about_needed, needed
from corea.policy.ties import fraction
from corea.policy.walk import Floats, Ints, Strings

#: Ladders on a path. Between two neighbours of so many lies half a per cent of the questions.
POINTS = 200
#: What a point of accuracy may cost: prices tried, in shares of the last tier's bill, to find how tiers trade off.
_PRICES = 40
_ROUNDS = 3


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What k tiers, cheapest first, answered to the same n questions.

    ``correct``: (n, k), 0 or 1. ``cost``: (n, k), in one currency, what it takes to learn the confidence included; NaN
    where unknown. ``confidence``: (n, k − 1), in [0, 1] or NaN (unknown: never kept). ``keys``: (n,), what will be
    hashed at run time to split ties.
    """

    tiers: tuple[str, ...]
    correct: Floats
    cost: Floats
    confidence: Floats
    keys: Strings

    def __post_init__(self) -> None:
        n, k = len(self.keys), len(self.tiers)
        if k < 2:
            raise InputError("a ladder needs two tiers or more; name more of them")
        if self.correct.shape != (n, k) or self.cost.shape != (n, k) or self.confidence.shape != (n, k - 1):
            raise InputError(
                f"{k} tiers and {n} questions need correctness and costs of shape ({n}, {k}) and confidences of "
                f"({n}, {k - 1}), not {self.correct.shape}, {self.cost.shape} and {self.confidence.shape}"
            )
        if not ((self.correct == 0) | (self.correct == 1)).all():
            raise InputError(
                "correctness must be 0 or 1 to certify: where several samples a question were averaged, grade the one "
                "sample that the ladder would hand out"
            )
        checked(self.confidence)

    def __len__(self) -> int:
        return len(self.keys)

    @cached_property
    def fractions(self) -> Floats:
        """Where each question lies in the hash range: (n,)."""
        return np.array([fraction(str(key)) for key in self.keys], dtype=np.float64)

    @cached_property
    def priced(self) -> NDArray[np.bool_]:
        """Questions of which every tier's cost is known: (n,). Only they count for savings."""
        return np.asarray(~np.isnan(self.cost).any(axis=1))

    def where(self, mask: NDArray[np.bool_]) -> Answers:
        """The same tiers on some of the questions. ``mask``: (n,)."""
        return self.at(np.flatnonzero(mask))

    def at(self, rows: Ints) -> Answers:
        """The same tiers on these questions, which may repeat. ``rows``: places, in any order."""
        keys = np.asarray(self.keys, dtype=object)[rows]
        return self._with(
            self.tiers, self.correct[rows], self.cost[rows], self.confidence[rows], keys, self.fractions[rows]
        )

    def of(self, columns: Sequence[int]) -> Answers:
        """Some of the tiers, the last of all at the end, on the same questions. ``columns`` rise."""
        picked = list(columns)
        tiers = tuple(self.tiers[column] for column in picked)
        confidence = self.confidence[:, picked[:-1]]
        return self._with(tiers, self.correct[:, picked], self.cost[:, picked], confidence, self.keys, self.fractions)

    def _with(
        self,
        tiers: tuple[str, ...],
        correct: Floats,
        cost: Floats,
        confidence: Floats,
        keys: Strings,
        fractions: Floats,
    ) -> Answers:
        part = Answers(tiers=tiers, correct=correct, cost=cost, confidence=confidence, keys=keys)
        # Hashing is most of the work in a simulation, and these are hashed already.
        part.__dict__["fractions"] = fractions
        return part


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """Ladders in the order in which they are tested: ``thresholds`` and ``tie_fractions``, (points, k − 1).

    Along it no threshold rises; +inf: the tier is not asked.
    """

    thresholds: Floats
    tie_fractions: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What each ladder of a path does to n questions: (points,) each; ``answered``: (points, k), counts by tier.

    ``saving``: of the last tier's cost, net; None where no cost is known.
    """

    n: int
    harm: Ints
    gain: Ints
    answered: Ints
    saving: Floats | None


def path_of(answers: Answers, net_loss: Floats, *, points: int = POINTS) -> Path:
    """How to go from keeping nothing to keeping all, so that each step saves most for the accuracy it risks.

    ``net_loss``: (n, k − 1), what keeping is thought to lose there, P(last right) − P(tier right); NaN is never kept.
    For each price of a point of accuracy, a tier keeps what loses less than going on would, from the last tier
    backwards (dynamic programming); the path goes straight from one price's kept shares to the next one's. Fix it on
    other questions than those that certify. Raises :class:`InputError` where no confidence is known.
    """
    known = ~np.isnan(answers.confidence)
    if not known.any(axis=0).all():
        silent = answers.tiers[int(known.any(axis=0).argmin())]
        raise InputError(f"no confidence of tier {silent} is known, and without one it keeps nothing; leave it out")
    corners = _kept_shares(answers, np.where(known, net_loss, np.nan), known.sum(axis=0))
    length = np.append(0.0, np.cumsum(np.abs(np.diff(corners, axis=0)).sum(axis=1)))
    along = np.linspace(0, length[-1], points + 1)[1:]
    shares = np.column_stack([np.interp(along, length, column) for column in corners.T])
    kept = np.unique(np.rint(shares * known.sum(axis=0)).astype(np.int64), axis=0)
    columns = [_thresholds(answers, tier, kept[:, tier]) for tier in range(kept.shape[1])]
    return Path(
        thresholds=np.column_stack([one for one, _ in columns]),
        tie_fractions=np.column_stack([one for _, one in columns]),
    )


def tally(path: Path, answers: Answers) -> Tally:
    """Count harm, gain, answers and cost at every ladder of the path, in one sweep over the questions."""
    points, last = len(path.thresholds), len(answers.tiers) - 1
    right = answers.correct[:, last]
    cost = np.where(answers.priced[:, None], answers.cost, 0.0)
    # Up to this point of the path, no earlier tier keeps the question.
    open_until = np.full(len(answers), points)
    harm, gain, spent = (np.zeros(points + 1) for _ in range(3))
    answered = np.zeros((points, last + 1), dtype=np.int64)
    for tier in range(last):
        asked_from = int(np.isinf(path.thresholds[:, tier]).sum())
        kept_from = np.minimum(_kept_from(path, answers, tier), open_until)
        _add(spent, np.minimum(asked_from, open_until), open_until, cost[:, tier])
        _add(harm, kept_from, open_until, (answers.correct[:, tier] < right).astype(np.float64))
        _add(gain, kept_from, open_until, (answers.correct[:, tier] > right).astype(np.float64))
        counts = np.zeros(points + 1)
        _add(counts, kept_from, open_until, np.ones(len(answers)))
        answered[:, tier] = np.cumsum(counts)[:points].round()
        open_until = kept_from
    _add(spent, np.zeros(len(answers), dtype=np.int64), open_until, cost[:, last])
    answered[:, last] = len(answers) - answered[:, :last].sum(axis=1)
    always = float(cost[:, last].sum())
    return Tally(
        n=len(answers),
        harm=np.cumsum(harm)[:points].round().astype(np.int64),
        gain=np.cumsum(gain)[:points].round().astype(np.int64),
        answered=answered,
        saving=None if always <= 0 else 1 - np.cumsum(spent)[:points] / always,
    )


def foreseen(counted: Tally, *, n: int, max_drop: float, delta: float) -> float:
    """The saving that ``n`` other questions would certify if they were just like these: 0 where nothing would pass.

    Promises nothing: it is for choosing. Raises :class:`InputError` where no cost is known.
    """
    if counted.saving is None:
        raise InputError(
            "savings cannot be compared: no question has a known cost of every tier, or the last tier costs nothing; "
            "give the tiers prices and run them again: corea eval run"
        )
    if not passes(n, 0, 0, max_drop, delta):
        return 0.0
    scale = n / counted.n
    failed = score(n, counted.harm * scale, counted.gain * scale, max_drop) > float(ndtri(delta))
    stop = int(failed.argmax()) if failed.any() else len(failed)
    return float(counted.saving[:stop].max(initial=0.0))


def certify_path(path: Path, answers: Answers, *, max_drop: float = 0.02, delta: float = 0.05) -> CertifiedLadder:
    """The cheapest ladder before the first one that fails; without thresholds where none passes or none saves.

    The path must not have been chosen on these questions. Raises :class:`InputError` as the exact test does.
    """
    counted = tally(path, answers)
    # Where costs are unknown, the furthest ladder is taken for the cheapest.
    worth = np.arange(1.0, len(path.thresholds) + 1) if counted.saving is None else counted.saving
    passed = _passed(counted, max_drop, delta)
    at = int(worth[:passed].argmax()) if passed else -1
    if at < 0 or worth[at] <= 0:
        return _nothing(answers, counted, max_drop, delta)
    rungs = zip(answers.tiers, path.thresholds[at].tolist(), path.tie_fractions[at].tolist(), strict=False)
    harm, gain = int(counted.harm[at]), int(counted.gain[at])
    return CertifiedLadder(
        rungs=tuple(Rung(tier=t, threshold=None if np.isinf(v) else v, tie_fraction=tied) for t, v, tied in rungs),
        last=answers.tiers[-1], n=counted.n, max_drop=max_drop, delta=delta, harm=harm, gain=gain,
        drop=(harm - gain) / counted.n,
        expected_saving=None if counted.saving is None else float(counted.saving[at]),
        expected_shares=tuple((counted.answered[at] / counted.n).tolist()),
        p_value=p_value(counted.n, harm, gain, max_drop),
    )  # fmt: skip


def certify_pair(answers: Answers, *, max_drop: float = 0.02, delta: float = 0.05) -> CertifiedLadder:
    """Two tiers by the walk of two tiers, which needs no path and stops at each question."""
    small, large = answers.tiers
    found = certify(
        answers.confidence[:, 0], answers.correct[:, 0], answers.correct[:, 1], answers.keys,
        max_drop=max_drop, delta=delta, small_cost=answers.cost[:, 0], large_cost=answers.cost[:, 1],
    )  # fmt: skip
    return as_ladder(found, small, large)


def kept_by(ladder: CertifiedLadder, answers: Answers) -> Tally:
    """What a certified ladder does to other questions, as a path of one point. Their tiers may be more than its own."""
    few = answers.of([answers.tiers.index(tier) for tier in ladder.tiers])
    thresholds = [np.inf if rung.threshold is None else rung.threshold for rung in ladder.rungs]
    fractions = [rung.tie_fraction for rung in ladder.rungs]
    return tally(Path(thresholds=np.array([thresholds]), tie_fractions=np.array([fractions])), few)


def as_ladder(found: Certified, small: str, large: str) -> CertifiedLadder:
    """What was certified for two tiers, in the words of a ladder."""
    return CertifiedLadder(
        rungs=(Rung(tier=small, threshold=found.threshold, tie_fraction=found.tie_fraction),), last=large,
        method=found.method, n=found.n, max_drop=found.max_drop, delta=found.delta, harm=found.harm, gain=found.gain,
        drop=found.drop, expected_saving=found.expected_saving,
        expected_shares=(1 - found.expected_deferral_rate, found.expected_deferral_rate), p_value=found.p_value,
        needed_n=found.needed_n,
    )  # fmt: skip


def _passed(counted: Tally, max_drop: float, delta: float) -> int:
    """How many ladders pass before the first failure."""
    if not passes(counted.n, 0, 0, max_drop, delta):
        return 0
    verdicts: dict[tuple[int, int], bool] = {}
    for index, (harm, gain) in enumerate(zip(counted.harm.tolist(), counted.gain.tolist(), strict=True)):
        if (harm, gain) not in verdicts:
            verdicts[harm, gain] = passes(counted.n, harm, gain, max_drop, delta)
        if not verdicts[harm, gain]:
            return index
    return len(counted.harm)


def _nothing(answers: Answers, counted: Tally, max_drop: float, delta: float) -> CertifiedLadder:
    others = len(answers.tiers) - 1
    return CertifiedLadder(
        rungs=tuple(Rung(tier=tier, threshold=None) for tier in answers.tiers[:-1]), last=answers.tiers[-1],
        n=counted.n, max_drop=max_drop, delta=delta, harm=0, gain=0, drop=0.0,
        expected_saving=None if counted.saving is None else 0.0, expected_shares=(*(0.0,) * others, 1.0), p_value=None,
        needed_n=_needed_n(counted, max_drop, delta),
    )  # fmt: skip


def _needed_n(counted: Tally, max_drop: float, delta: float) -> int | None:
    """Certifying questions with which the path should reach its easiest useful ladder, at the rates seen on the way."""
    spared = 1 - counted.answered[:, -1] / counted.n
    useful = spared >= USEFUL_SHARE if counted.saving is None else counted.saving > 0
    about = about_needed(counted.harm / counted.n, counted.gain / counted.n, max_drop, delta)
    # Where an earlier ladder has lost more than ε by now, that is taken for chance.
    reachable = np.where(np.isfinite(about), about, 0.0)
    hardest = np.maximum.accumulate(reachable)
    candidates = np.flatnonzero(useful & np.isfinite(about))
    if len(candidates) == 0:
        return None
    easiest = int(candidates[hardest[candidates].argmin()])
    binding = int(reachable[: easiest + 1].argmax())
    rates = counted.harm[binding] / counted.n, counted.gain[binding] / counted.n
    count = needed(float(rates[0]), float(rates[1]), max_drop, delta)
    return None if count is None else max(count, counted.n + 1)


def _kept_shares(answers: Answers, net_loss: Floats, known: Ints) -> Floats:
    """Corners of the path: shares of its known confidences that each tier keeps, (corners, k − 1), rising from 0 to 1.

    Money is measured in the last tier's mean cost. ``ahead`` is what going on from a tier loses and costs, the mean
    over the questions that get there; who gets there depends on the tiers before, hence the rounds.
    """
    n, k = answers.correct.shape
    cost = np.nan_to_num(answers.cost[answers.priced].mean(axis=0)) if answers.priced.any() else np.ones(k)
    cost = cost / max(cost[-1], 1e-300)
    prices = np.append(0.0, np.geomspace(1e-3, 30.0, _PRICES))[:, None]
    lost = answers.correct[:, -1:] - answers.correct
    keeps = np.zeros((k - 1, len(prices), n), dtype=bool)
    for _ in range(_ROUNDS):
        gets_on = np.logical_and.accumulate(~keeps, axis=0)
        value = np.broadcast_to(prices * cost[-1], (len(prices), n))
        chosen = np.empty_like(keeps)
        for tier in reversed(range(k - 1)):
            arriving = gets_on[tier].sum(axis=1, keepdims=True)
            mean = np.where(gets_on[tier], value, 0.0).sum(axis=1, keepdims=True) / np.maximum(arriving, 1)
            ahead = np.where(arriving > 0, mean, value.mean(axis=1, keepdims=True))
            chosen[tier] = net_loss[:, tier] <= ahead
            value = np.where(chosen[tier], lost[:, tier], value) + prices * cost[tier]
        if (chosen == keeps).all():
            break
        keeps = chosen
    shares = keeps.sum(axis=2).T / known
    ends = np.zeros((1, k - 1)), np.ones((1, k - 1))
    return np.asarray(np.maximum.accumulate(np.concatenate([ends[0], shares, ends[1]]), axis=0))


def _thresholds(answers: Answers, tier: int, kept: Ints) -> tuple[Floats, Floats]:
    """(threshold, tie fraction) that keep so many questions of this tier, surest first: (points,) each."""
    confidence = answers.confidence[:, tier]
    order = np.lexsort((answers.fractions, -confidence))[: int((~np.isnan(confidence)).sum())]
    values, fractions = confidence[order], answers.fractions[order]
    # The last of a run of equal confidences is kept with all that could still come at that value.
    fractions = np.where(np.append(values[1:] != values[:-1], True), 1.0, fractions)
    at = kept - 1
    return np.where(kept > 0, values[at], np.inf), np.where(kept > 0, fractions[at], 1.0)


def _kept_from(path: Path, answers: Answers, tier: int) -> Ints:
    """The first point of the path at which this tier would keep each question: (n,); the number of points if none."""
    thresholds, confidence = path.thresholds[:, tier], answers.confidence[:, tier]
    levels = np.unique(thresholds)[::-1]
    # Thresholds fall and fractions rise within each of them, so 2 · level + fraction rises along the path.
    steps = 2 * np.searchsorted(-levels, -thresholds) + path.tie_fractions[:, tier]
    level = np.searchsorted(-levels, -confidence)
    exact = levels[np.minimum(level, len(levels) - 1)] == confidence
    place = np.where(exact, 2 * level + answers.fractions, 2 * level - 0.5)
    return np.where(np.isnan(confidence), len(thresholds), np.searchsorted(steps, place))


def _add(total: Floats, start: Ints, end: Ints, amount: Floats) -> None:
    """Add each amount from its start up to its end, as differences: (points + 1,)."""
    size = len(total)
    total += np.bincount(start, weights=amount, minlength=size) - np.bincount(end, weights=amount, minlength=size)
