"""What a tier's answers and a confidence signal are worth: accuracy, calibration and ranking, with intervals.

Everything follows from one sort a signal: questions with equal confidence form a group, and each metric is a function
of the groups' sizes and right answers. The same function gives the value and, on resampled sizes, its bootstrap
interval. A fractional ``correct`` y counts as y of a right attempt and 1 − y of a wrong one, everywhere; scikit-learn,
whose AUROC, Brier score and calibration curve these equal on whole ones, takes no fractions and sorts for each metric.

Knows no costs and no thresholds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from corea.errors import InputError
from corea.evaluate.outcomes import Floats, Pair, Strings

#: Up to so many questions every resample is drawn question by question; beyond, in cells (see :class:`Resamples`).
EXACT_MAX = 4096
CELLS = 256
#: Numbers worked on at once: few enough for a processor's cache.
_BLOCK = 2**17

Indices = NDArray[np.intp]


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A figure and its bootstrap interval, from ``n`` questions. None where there is none, and ``note`` says why."""

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int
    note: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalMetrics:
    """One confidence signal on one set of questions. All but ``coverage`` are of the questions where it is known."""

    ece: Estimate
    ece_equal_mass: Estimate
    brier: Estimate
    auroc: Estimate
    aurc: Estimate
    distinct_values: Estimate
    tie_rate: Estimate
    coverage: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupMetrics:
    """All metrics of the questions of one task, of one domain, or of all of them (``name`` is then empty)."""

    by: Literal["all", "task", "domain"]
    name: str
    n: int
    small_pass_at_1: Estimate
    large_pass_at_1: Estimate
    signals: Mapping[str, SignalMetrics]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """Questions sorted once by confidence, most confident first, equal ones grouped, unknown ones left out.

    ``order``: shape (m,), places of the m known ones among the n. ``starts``, ``values``, ``sizes``: shape (g,), where
    each group begins in ``order``, its confidence and its number of questions.
    """

    order: Indices
    starts: Indices
    values: Floats
    sizes: Floats
    n: int

    def unknown_note(self, fate: str = "left out") -> str | None:
        """How many confidences are unknown, and what became of them; None where none is."""
        unknown = self.n - len(self.order)
        return f"unknown for {unknown} of {self.n} ({unknown / self.n:.1%}), {fate}" if unknown else None

    def sums(self, per_question: Floats) -> Floats:
        """Sum over each group: (n,) → (g,)."""
        taken = per_question[self.order]
        return taken if len(self.starts) == len(taken) else np.add.reduceat(taken, self.starts)


def rank(confidence: Floats) -> Ranked:
    """Sort once. Raises :class:`InputError` for no questions, or a confidence outside [0, 1]."""
    values = np.asarray(confidence, dtype=np.float64)
    ascending = np.argsort(values)
    known = len(values) - int(np.count_nonzero(np.isnan(values)))
    order = ascending[:known][::-1]
    taken = values[order]
    if not len(values):
        raise InputError("there are no questions to evaluate; check the outcomes' file and its filters")
    if known and not (taken[-1] >= 0.0 and taken[0] <= 1.0):
        raise InputError(f"confidence: {taken[0]:g} to {taken[-1]:g} is not within 0 to 1; unknown must be null")
    starts = np.concatenate(([0], np.flatnonzero(taken[1:] != taken[:-1]) + 1)) if known else np.empty(0, np.intp)
    sizes = np.diff(starts, append=known).astype(np.float64)
    return Ranked(order=order, starts=starts, values=taken[starts], sizes=sizes, n=len(values))


class Resamples:
    """Bootstrap samples of n questions, shared by all figures of these questions (so that differences are paired).

    Up to ``EXACT_MAX`` questions: multinomial counts, one a question and sample. Beyond, the law that their sums tend
    to: means are drawn from a normal distribution with the data's covariance; ranking metrics from the sums of at most
    about ``CELLS`` runs of neighbours in the ranking, each sum normal with its Poisson-bootstrap covariance, and the
    metric's deviation is added to its exact value. At n = 4096 both give the same interval within 3 % of its width.
    """

    def __init__(self, n: int, *, rng: np.random.Generator, count: int = 1000) -> None:
        self.n, self.count, self.rng = n, count, rng
        self.counts = _multinomial(n, count, rng) if n <= EXACT_MAX else None

    def means(self, columns: Floats) -> Floats:
        """Resampled means of each column: (n, p) → (count, p)."""
        if self.counts is not None:
            return np.concatenate([part @ columns for part in _blocks(self.counts)]) / self.n
        means = columns.mean(axis=0)
        deviations = columns.std(axis=0)
        # Correlations, as costs in nano-USD would drown accuracies; by svd, as columns may be constant, or copies.
        scaled = (columns - means) / np.where(deviations > 0, deviations, 1.0)
        correlation = scaled.T @ scaled / self.n
        zero = np.zeros(len(means))
        drawn = self.rng.multivariate_normal(zero, correlation, size=self.count, method="svd", check_valid="ignore")
        return np.asarray(means + drawn * (deviations / np.sqrt(self.n)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How finely to bin, and how wide an interval is."""

    bins: int = 10
    level: float = 0.95
    resamples: int = 1000

    @property
    def percentiles(self) -> tuple[float, float]:
        return 50 * (1 - self.level), 50 * (1 + self.level)


DEFAULT = Settings()


def measure(pair: Pair, *, rng: np.random.Generator, settings: Settings = DEFAULT) -> tuple[GroupMetrics, ...]:
    """All metrics of all signals: over all questions, then a task, then a domain. InputError for no questions."""
    # Threads cost more than they give for products as small as these, and stall one another on a busy machine.
    with threadpool_limits(limits=1, user_api="blas"):
        return tuple(_group(part, by, name, rng, settings) for by, name, part in groups(pair))


def groups(pair: Pair) -> Iterator[tuple[Literal["all", "task", "domain"], str, Pair]]:
    """The questions of all, of each task, of each domain. Questions without a task are in "all" only."""
    yield "all", "", pair
    for name, mask in _masks(pair.tasks):
        yield "task", name, pair.where(mask)
    for name, mask in _masks(pair.domains):
        yield "domain", name, pair.where(mask)


def pass_at_1(correct: Floats, resamples: Resamples, settings: Settings = DEFAULT) -> Estimate:
    """Share of right answers. Shape (n,), 0 to 1; raises InputError outside, or for no questions."""
    checked = check_correct(correct)
    estimate = estimate_of(float(checked.mean()), resamples.means(checked[:, None])[:, 0], len(checked), settings)
    if estimate.value not in (0.0, 1.0):
        return estimate
    # Unanimous: every resample is too, so the exact (Clopper–Pearson) bound takes over.
    slack = 1 - ((1 - settings.level) / 2) ** (1 / len(checked))
    low, high = (1 - slack, 1.0) if estimate.value else (0.0, slack)
    return Estimate(value=estimate.value, low=low, high=high, n=len(checked), note="unanimous: exact interval")


def signal_metrics(
    correct: Floats, ranked: Ranked, resamples: Resamples, settings: Settings = DEFAULT
) -> SignalMetrics:
    """All metrics of one signal on n questions, from one sort. ``correct``: shape (n,), 0 to 1."""
    checked = check_correct(correct)
    if len(checked) != ranked.n or ranked.n != resamples.n:
        raise InputError(
            f"{len(checked)} graded answers but {ranked.n} confidences; they must be of the same questions"
        )
    coverage, tie_rate = _shares(ranked, resamples, settings)
    known = len(ranked.order)
    if not known:
        none = Estimate(value=None, n=0, note="the confidence is unknown for every question")
        zero = Estimate(value=0.0, n=0, note=none.note)
        return SignalMetrics(
            ece=none, ece_equal_mass=none, brier=none, auroc=none, aurc=none,
            distinct_values=zero, tie_rate=none, coverage=coverage,
        )  # fmt: skip
    table = _Table.of(checked, ranked, settings.bins)
    exact = table.scores(table.sizes[None], table.rights[None])
    drawn = _drawn(table, exact, checked, ranked, resamples)
    note = ranked.unknown_note()
    found = {name: estimate_of(float(exact[name][0]), drawn[name], known, settings, note) for name in ("brier", "aurc")}
    for name, edges in table.edges.items():
        found[name] = _ece(exact[name][0], drawn[name], table, edges, resamples, settings, note)
    distinct = Estimate(value=float(len(ranked.values)), n=known, note=_joined(note, "a count: no interval"))
    auroc = _auroc(float(exact["auroc"][0]), drawn["auroc"], table, known, settings, note)
    return SignalMetrics(**found, auroc=auroc, distinct_values=distinct, tie_rate=tie_rate, coverage=coverage)


def bin_starts(ranked: Ranked, bins: int) -> tuple[Indices, Indices]:
    """First group of each bin that holds any: of equal width, (low, high] and the first one with 0; and of equal mass.

    A group is never split: with equal mass it lies where the middle one of its questions would.
    """
    g = len(ranked.values)
    inner = np.linspace(0, 1, bins + 1)[1:-1]
    # Values descend, so a bin begins with the first group that is not above its upper edge.
    width = g - np.searchsorted(ranked.values[::-1], inner, side="right")
    middle = ranked.starts + ranked.sizes / 2
    mass = np.searchsorted(middle, np.arange(1, bins) * (len(ranked.order) / bins), side="left")
    return np.unique(np.append(0, width[width < g])), np.unique(np.append(0, mass[mass < g]))


def estimate_of(value: float, drawn: Floats, n: int, settings: Settings, note: str | None = None) -> Estimate:
    """The percentile interval of what the resamples gave; those that gave nothing (NaN) are left out."""
    told = drawn[~np.isnan(drawn)]
    if n < 2 or not len(told):
        return Estimate(value=value, n=n, note=_joined(note, "too few questions for an interval"))
    low, high = np.percentile(told, settings.percentiles)
    return Estimate(value=value, low=float(low), high=float(high), n=n, note=note)


def check_correct(correct: Floats) -> Floats:
    """Raises :class:`InputError` for no questions, or a grade outside [0, 1]."""
    checked = np.asarray(correct, dtype=np.float64)
    if not len(checked):
        raise InputError("there are no questions to evaluate; check the outcomes' file and its filters")
    if not (checked.min() >= 0 and checked.max() <= 1):
        raise InputError("correct: every grade must lie within 0 to 1; grade the missing ones, or leave them out")
    return checked


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    """Groups (or cells of neighbouring groups) with their sizes and right answers; ``edges`` begin the ECE's bins."""

    values: Floats
    sizes: Floats
    rights: Floats
    #: Σ y², for the variance of a sum of fractional grades.
    squares: Floats
    edges: Mapping[str, Indices] = field(default_factory=dict)

    @classmethod
    def of(cls, correct: Floats, ranked: Ranked, bins: int) -> _Table:
        width, mass = bin_starts(ranked, bins)
        rights = ranked.sums(correct)
        squares = ranked.sums(correct**2)
        edges = {"ece": width, "ece_equal_mass": mass}
        return cls(values=ranked.values, sizes=ranked.sizes, rights=rights, squares=squares, edges=edges)

    def coarse(self, cells: int) -> _Table:
        """About ``cells`` cells of neighbours, at least 64 questions each unless a bin is smaller; bins are kept."""
        ends = np.cumsum(self.sizes)
        wanted = min(cells, max(1, int(ends[-1]) // 64))
        marks = np.searchsorted(ends, np.arange(wanted) * (ends[-1] / wanted), side="right")
        starts = np.unique(np.concatenate([marks, *self.edges.values()]))
        sizes, rights, squares = (np.add.reduceat(x, starts) for x in (self.sizes, self.rights, self.squares))
        values = np.add.reduceat(self.sizes * self.values, starts) / sizes
        edges = {name: np.searchsorted(starts, edge) for name, edge in self.edges.items()}
        return _Table(values=values, sizes=sizes, rights=rights, squares=squares, edges=edges)

    def scores(self, sizes: Floats, rights: Floats) -> dict[str, Floats]:
        """Every metric for other sizes and right answers of the same groups: (r, g) → (r,) each; ECE's gaps (r, bins).

        Brier: mean of (c − y)². AUROC: chance that a right answer is ranked above a wrong one, ties counting half
        (Hanley and McNeil 1982). AURC: mean over questions of the error rate among those at least as confident
        (Geifman, Uziel and El-Yaniv 2019, arXiv 1805.08206). ECE: Σ |gap| over bins, a gap being the bin's share
        of questions × (mean y − mean c) (Naeini et al. 2015).
        """
        total = sizes.sum(axis=1)
        right = rights.sum(axis=1)
        wrongs = sizes - rights
        missed = np.cumsum(wrongs, axis=1)
        won = right * missed[:, -1] - _dots(rights, missed) + _dots(rights, wrongs) / 2
        pairs = right * missed[:, -1]
        auroc = np.divide(won, pairs, out=np.full_like(won, np.nan), where=pairs > 0)
        # Arrays are used again, as new ones cost more than the sums. A resample may hold none of the first groups:
        # nothing is kept then, and nothing missed.
        kept = np.maximum(np.cumsum(sizes, axis=1, out=wrongs), 1e-300, out=wrongs)
        aurc = _dots(sizes, np.divide(missed, kept, out=kept)) / total
        brier = (sizes @ self.values**2 - 2 * (rights @ self.values) + right) / total
        gaps = np.subtract(rights, np.multiply(sizes, self.values, out=missed), out=missed)
        binned = {name: np.add.reduceat(gaps, edge, axis=1) / total[:, None] for name, edge in self.edges.items()}
        return {"auroc": auroc, "aurc": aurc, "brier": brier, **binned}


def _drawn(
    table: _Table, exact: Mapping[str, Floats], correct: Floats, ranked: Ranked, resamples: Resamples
) -> dict[str, Floats]:
    """Every metric on every resample: (count,) each; ECE's gaps (count, bins)."""
    if resamples.counts is None:
        return _drawn_in_cells(table, exact, resamples)
    grades = correct[ranked.order]
    parts = []
    for counts in _blocks(resamples.counts):
        sizes = counts[:, ranked.order].astype(np.float64)
        rights = sizes * grades
        if len(ranked.starts) < len(ranked.order):
            sizes, rights = (np.add.reduceat(x, ranked.starts, axis=1) for x in (sizes, rights))
        # A resample without a single known confidence says nothing.
        held = sizes.any(axis=1)
        parts.append(table.scores(sizes[held], rights[held]))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _drawn_in_cells(table: _Table, exact: Mapping[str, Floats], resamples: Resamples) -> dict[str, Floats]:
    cells = table.coarse(CELLS)
    coarse = cells.scores(cells.sizes[None], cells.rights[None])
    one, two = resamples.rng.standard_normal((2, resamples.count, len(cells.sizes)))
    deviation = np.sqrt(cells.sizes)
    sizes = np.maximum(cells.sizes + deviation * one, 0)
    # Covariance of Σw and Σwy under Poisson(1) weights w: Σ1, Σy, Σy².
    slope = cells.rights / deviation
    rest = np.sqrt(np.maximum(cells.squares - slope**2, 0))
    rights = np.clip(cells.rights + slope * one + rest * two, 0, sizes)
    drawn = cells.scores(sizes, rights)
    return {name: drawn[name] - coarse[name] + exact[name] for name in drawn}


def _ece(
    gaps: Floats,
    drawn: Floats,
    table: _Table,
    edges: Indices,
    resamples: Resamples,
    settings: Settings,
    note: str | None,
) -> Estimate:
    """ECE = Σ |gap|, and its interval. ``gaps``: shape (bins,); ``drawn``: their resamples (count, bins).

    Chance makes every |gap| too large, in the data and again in a resample, so plain percentiles miss a small ECE
    nearly always. So the resampled gaps keep the data's signs, and the bias seen from data to resamples is taken off.
    Where a perfectly calibrated signal would show as much by chance (consistency resampling, Bröcker and Smith 2007,
    with a normal sum in each bin), the interval begins at 0.
    """
    n = int(table.sizes.sum())
    value = float(np.abs(gaps).sum())
    bias = float(np.abs(drawn).sum(axis=1).mean()) - value if len(drawn) else 0.0
    estimate = estimate_of(value, np.maximum(drawn @ np.sign(gaps) - bias, 0), n, settings, note)
    if estimate.high is None:
        return estimate
    spread = np.sqrt(np.add.reduceat(table.sizes * table.values * (1 - table.values), edges))
    chance = np.abs(resamples.rng.standard_normal((resamples.count, len(edges))) * spread).sum(axis=1) / n
    if value > np.percentile(chance, settings.percentiles[1]):
        return estimate
    told = _joined(note, "no more than a calibrated signal shows by chance")
    return Estimate(value=value, low=0.0, high=max(estimate.high, value), n=n, note=told)


def _auroc(value: float, drawn: Floats, table: _Table, n: int, settings: Settings, note: str | None) -> Estimate:
    if np.isnan(value):
        which = "right" if table.rights.any() else "wrong"
        return Estimate(value=None, n=n, note=_joined(note, f"every answer is {which}: nothing to rank"))
    if value in (0.0, 1.0):
        note = _joined(note, "perfectly ranked: no resample can differ")
    return estimate_of(value, drawn, n, settings, note)


def _shares(ranked: Ranked, resamples: Resamples, settings: Settings) -> tuple[Estimate, Estimate]:
    """Coverage: share of known confidences. Tie rate: share of those whose value another question has too.

    A resample repeats questions, which are no ties: the interval is of the share, with what is tied held fixed.
    """
    tied = float(ranked.sizes[ranked.sizes > 1].sum())
    single = len(ranked.order) - tied
    parts = np.array([ranked.n - len(ranked.order), single, tied]) / ranked.n
    _, singles, ties = resamples.rng.multinomial(ranked.n, parts, size=resamples.count).T
    known = singles + ties
    coverage = estimate_of(len(ranked.order) / ranked.n, known / ranked.n, ranked.n, settings)
    if not len(ranked.order):
        return coverage, Estimate(value=None, n=0)
    share = np.divide(ties, known, out=np.full(len(ties), np.nan), where=known > 0)
    return coverage, estimate_of(tied / len(ranked.order), share, len(ranked.order), settings, ranked.unknown_note())


def _group(
    pair: Pair, by: Literal["all", "task", "domain"], name: str, rng: np.random.Generator, settings: Settings
) -> GroupMetrics:
    if not len(pair):
        raise InputError("there are no questions to evaluate; check the outcomes' file and its filters")
    resamples = Resamples(len(pair), rng=rng, count=settings.resamples)
    signals = {
        signal: signal_metrics(pair.small_correct, rank(values), resamples, settings)
        for signal, values in pair.confidence.items()
    }
    return GroupMetrics(
        by=by,
        name=name,
        n=len(pair),
        small_pass_at_1=pass_at_1(pair.small_correct, resamples, settings),
        large_pass_at_1=pass_at_1(pair.large_correct, resamples, settings),
        signals=signals,
    )


def _masks(labels: Strings) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    for name in sorted({label for label in labels if label is not None}):
        yield name, labels == name


def _multinomial(n: int, count: int, rng: np.random.Generator) -> NDArray[np.uint16]:
    """How often each question is drawn in each resample: shape (count, n)."""
    rows = [np.bincount(rng.integers(n, size=n), minlength=n) for _ in range(count)]
    return np.array(rows, dtype=np.uint16)


def _blocks(counts: NDArray[np.uint16]) -> list[NDArray[np.uint16]]:
    return np.array_split(counts, 1 + counts.size // _BLOCK)


def _dots(a: Floats, b: Floats) -> Floats:
    """Row by row: (r, g), (r, g) → (r,)."""
    return np.asarray(np.einsum("rg,rg->r", a, b))


def _joined(*notes: str | None) -> str | None:
    return "; ".join(note for note in notes if note) or None
