"""Outcomes → a gate, certified together with the threshold, and whether it is worth having at all.

A third of the questions fits the gate and decides by cross-fitting between no gate, a gate with a fixed cut and a gate
whose cut is walked; the others certify what was decided, and are used for nothing else. The gate itself, and asking it,
is :mod:`corea.policy.gate`. Asks no models.

With a fixed cut, a question below it counts as deferred at no cost of the small model, and the walk goes along the
confidence as without a gate. Where the confidence says less than the question does, the walk goes along the gate's
chance instead: every answer of known confidence that it lets through is kept, and the cut is what is certified.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, hstack

from corea.confidence.fitted import ConfidenceMap
from corea.errors import InputError
from corea.evaluate.certification import (
    CHOICE_SHARE,
    Choice,
    Terms,
    best_signal,
    certificate_of,
    certified,
    choose,
    usable_signals,
    with_map,
)
from corea.evaluate.maps import logistic, split
from corea.evaluate.metrics import DEFAULT, Estimate, Indices, Resamples, Settings, estimate_of
from corea.evaluate.outcomes import Floats, Outcomes, Pair, Strings
from corea.evaluate.pairs import has_texts, tie_keys
from corea.identity import hashes_of
from corea.policy.certificate import Certificate, Certified, Promise
from corea.policy.certify import along, savings
from corea.policy.gate import PLACES, Gate, Trait, label, see
from corea.policy.ladder import Tally, foreseen
from corea.policy.ties import keeps
from corea.policy.walk import Walk, walk

#: Fewer questions than this, right and wrong ones among them, fit no gate.
MIN_FIT = 60
#: A gate must be foreseen to save so much more than none: it is one more thing to run, and less is mostly chance.
MIN_GAIN = 0.01
#: Shares of the questions that a fixed cut may skip.
SHARES = np.linspace(0.1, 0.9, 9)
FOLDS = 5
#: The walk of a few hundred questions may fail early by chance: what it saves is the mean over so many resamples.
RESAMPLES = 20
#: Of a walk whose stops are cuts.
METHOD = "exact score-ordered net-drop test, walk along the gate"
_PENALTY = 1.0
_SALT = "gate"

Kind = Literal["none", "fixed", "walked"]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A rule for the gate, and the saving that the fitting questions let one expect to certify.

    ``share``: of the questions that a fixed cut skips, ``cut``: where it lies; None for the other kinds.
    """

    kind: Kind
    share: float | None = None
    cut: float | None = None
    foreseen: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What was decided on ``fitted_on`` questions and certified on the others; ``gate=None``: no gate is better.

    ``certified`` is with the gate, ``plain`` without one, on the same questions; ``skipped``: the share of them that
    the gate skips. ``saving``, ``plain_saving`` and ``gain``, their difference, are net, with intervals over the
    questions at these thresholds. ``candidates``: best first.
    """

    gate: Gate | None
    kind: Kind
    certified: Certified
    plain: Certified
    skipped: float
    saving: Estimate
    plain_saving: Estimate
    gain: Estimate
    fitted_on: int
    candidates: tuple[Candidate, ...]

    @property
    def verdict(self) -> str:
        """Whether a gate is worth it, as the fitting questions see it, and what the others say to that."""
        seen = f"By the {self.fitted_on:,} questions that fitted it"
        without = next(one for one in self.candidates if one.kind == "none").foreseen
        best = max((one.foreseen for one in self.candidates if one.kind != "none"), default=0.0)
        both = f"{best:.1%} with a gate and {without:.1%} without"
        if self.gate is None:
            return f"{seen}, no gate is better: one would save {both}. So there is none, and nothing is skipped."
        if self.gain.value is not None and self.gain.value < 0:
            return (
                f"{seen}, one would save {both}; on those that certify, no gate would have been better. To choose "
                "again by these would void the promise: certify without one on other questions, with: corea certify"
            )
        return f"{seen}, one would save {both}."


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """The questions judged by one signal, its cost included, and which of them fit the gate: ``fitting``, (n,)."""

    judged: Pair
    signal: str
    fitting: Mask


def split_of(
    pair: Pair,
    outcomes: Outcomes,
    *,
    signal: str | None = None,
    fitted: ConfidenceMap | None = None,
    share: float = CHOICE_SHARE,
) -> Split:
    """By the named signal, a map's, or the best one by the fitting questions: ``share`` of them, by a hash of the id.

    Raises :class:`InputError` for outcomes without question texts, too few of them, or without a usable signal.
    """
    if not has_texts(pair):
        raise InputError(
            "a gate reads the questions, and the outcomes do not hold the texts of all of them; ask them with: "
            "corea eval run, or import rows with a question"
        )
    if fitted is not None:
        pair, signal = with_map(pair, fitted, outcomes).pair, "fitted"
    elif signal is not None:
        pair = choose(pair, signal, outcomes).pair
    fitting = split(pair.ids, share=share, salt=_SALT)
    if fitting.sum() < MIN_FIT or fitting.all():
        raise InputError(
            f"{len(pair)} questions are too few: {int(fitting.sum())} of them would fit the gate, and {MIN_FIT} are "
            "needed; evaluate some hundreds more: corea eval run"
        )
    chosen = signal or _best_signal(pair, outcomes, fitting)
    return Split(judged=pair.judged_by(chosen), signal=chosen, fitting=fitting)


def search(halves: Split, terms: Terms, gate: Gate, *, rng: np.random.Generator, settings: Settings = DEFAULT) -> Found:
    """Decide on the fitting questions, certify on the others. ``gate``: fitted on the former, whatever its cut.

    Raises :class:`InputError` for fractional grades, and where no question has two known costs.
    """
    part, rest = halves.judged.where(halves.fitting), halves.judged.where(~halves.fitting)
    signal = halves.signal
    crossed = cross_fitted(part, rng=rng)
    candidates = sorted(
        _candidates(part, signal, crossed, len(rest), terms, rng),
        # The first of equals skips least.
        key=lambda one: one.foreseen - (0.0 if one.kind == "none" else MIN_GAIN),
        reverse=True,
    )
    best = candidates[0]
    plain = certified(rest, signal, terms)
    made, held = _certified(rest, signal, terms, gate, best, plain)
    asked = np.ones(len(rest), dtype=bool) if made is None else asks(made, rest)
    costs = np.column_stack([
        _costs(rest, signal, held, asked),
        _costs(rest, signal, plain, np.ones(len(rest), dtype=bool)),
        rest.large_cost_nano_usd,
    ])  # fmt: skip
    saving, plain_saving, gain = _savings(costs, rng, settings)
    return Found(
        gate=made,
        kind=best.kind,
        certified=held,
        plain=plain,
        skipped=float(1 - asked.mean()),
        saving=saving,
        plain_saving=plain_saving,
        gain=gain,
        fitted_on=len(part),
        candidates=tuple(candidates),
    )


def fit(part: Pair, outcomes: Outcomes, *, tasks: Strings, created_at: str) -> Gate:
    """A gate that skips nothing yet, from questions with texts. ``tasks``: of all the questions it may be asked."""
    return _gate(
        part,
        hashes=_small_hashes(outcomes, part),
        tasks=tuple(sorted({str(task) for task in tasks if task is not None})),
        data_hash=str(outcomes.metadata.get("data_hash", "")),
        created_at=created_at,
    )


def asks(gate: Gate, pair: Pair) -> Mask:
    """Which questions the gate lets the small model be asked, (n,), to the last bit as a cascade will.

    Raises :class:`InputError` for a task that it was not fitted on.
    """
    strangers = sorted({str(task) for task in pair.tasks if task is not None} - set(gate.tasks))
    if strangers and gate.tasks:
        raise InputError(
            f'the gate was not fitted on questions of task "{strangers[0]}", but on: {", ".join(gate.tasks)}; '
            "fit one on outcomes that hold them all: corea eval gate"
        )
    return chances(gate, pair) >= gate.cut


def chances(gate: Gate, pair: Pair) -> Floats:
    """The gate's chance that the small model is right, (n,)."""
    return np.array([gate.score(_see(str(text))) for text in pair.questions], dtype=np.float64)


def gated(pair: Pair, gate: Gate) -> Pair:
    """As a cascade with this gate sees them: what it skips has no confidence, and the small model's cost is 0."""
    asked = asks(gate, pair)
    return replace(
        pair,
        confidence={name: np.where(asked, stated, np.nan) for name, stated in pair.confidence.items()},
        small_cost_nano_usd=np.where(asked, pair.small_cost_nano_usd, 0.0),
        signal_cost_nano_usd={name: np.where(asked, cost, 0.0) for name, cost in pair.signal_cost_nano_usd.items()},
    )


def certificate_with(
    outcomes: Outcomes,
    halves: Split,
    found: Found,
    terms: Terms,
    *,
    created_at: str,
    fitted: ConfidenceMap | None = None,
) -> Certificate:
    """The certificate of what was found, bound to its gate if there is one. ``fitted``: the map behind the signal."""
    rest = halves.judged.where(~halves.fitting)
    choice = Choice(pair=rest, signal=halves.signal, chosen_on=found.fitted_on)
    made = certificate_of(outcomes, choice, terms, created_at=created_at, fitted=fitted)
    promises = (Promise(certified=found.certified),)
    return replace(made, promises=promises, gate=None if found.gate is None else label(found.gate))


def cross_fitted(part: Pair, *, rng: np.random.Generator) -> Floats:
    """The chance that the small model is right, from gates fitted on the other folds: (n,)."""
    fold: Indices = rng.permutation(np.arange(len(part)) % FOLDS)
    found = np.empty(len(part))
    for number in range(FOLDS):
        held = fold == number
        gate = _gate(part.where(~held), hashes=(None, None), tasks=(), data_hash="", created_at="")
        found[held] = chances(gate, part.where(held))
    return found


def _best_signal(pair: Pair, outcomes: Outcomes, fitting: Mask) -> str:
    usable = usable_signals(outcomes, pair)
    if not usable:
        raise InputError(
            f"no row of tier {pair.small} holds a confidence that a cascade can be judged by, and without one nothing "
            "can be kept; run the tier with: corea eval run, or import rows with a confidence"
        )
    few = replace(pair, confidence={name: pair.confidence[name] for name in usable})
    return usable[0] if len(usable) == 1 else best_signal(few.where(fitting))


def _candidates(
    part: Pair, signal: str, crossed: Floats, n: int, terms: Terms, rng: np.random.Generator
) -> list[Candidate]:
    """No gate, every fixed cut, and the walked one, each with what it is foreseen to save on n other questions."""
    fixed = [
        Candidate(kind="fixed", share=float(share), cut=float(cut))
        for share, cut in zip(SHARES, np.quantile(crossed, SHARES), strict=True)
    ]
    rules = [Candidate(kind="none"), *fixed, Candidate(kind="walked")]
    hopes = np.zeros(len(rules))
    for _ in range(RESAMPLES):
        rows = rng.integers(len(part), size=len(part))
        drawn = _Drawn(
            confidence=part.confidence[signal][rows],
            chances=crossed[rows],
            small=part.small_correct[rows],
            large=part.large_correct[rows],
            small_cost=part.small_cost_nano_usd[rows],
            large_cost=part.large_cost_nano_usd[rows],
            keys=part.ids[rows],
        )
        hopes += [_hope(drawn, rule, n, terms) for rule in rules]
    return [replace(rule, foreseen=float(hope)) for rule, hope in zip(rules, hopes / RESAMPLES, strict=True)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Drawn:
    """Questions in arrays of shape (n,); costs are those of one signal."""

    confidence: Floats
    chances: Floats
    small: Floats
    large: Floats
    small_cost: Floats
    large_cost: Floats
    keys: Strings


def _hope(drawn: _Drawn, rule: Candidate, n: int, terms: Terms) -> float:
    if rule.kind == "walked":
        path, saving = _along_the_gate(drawn)
    else:
        asked = drawn.chances >= (rule.cut or 0.0)
        path = walk(np.where(asked, drawn.confidence, np.nan), drawn.small, drawn.large, drawn.keys)
        saving = savings(path, np.where(asked, drawn.small_cost, 0.0), drawn.large_cost)
    unused = np.empty((len(path.kept), 0), dtype=np.int64)
    counted = Tally(n=path.n, harm=path.harm, gain=path.gain, answered=unused, saving=saving)
    return foreseen(counted, n=n, max_drop=terms.max_drop, delta=terms.delta)


def _along_the_gate(drawn: _Drawn) -> tuple[Walk, Floats | None]:
    """The walk from the gate's surest question down, and the savings at its stops: places where a cut can lie."""
    path = walk(np.where(np.isnan(drawn.confidence), np.nan, drawn.chances), drawn.small, drawn.large, drawn.keys)
    last = path.kept - 1
    # A cut has no fraction: questions of one chance are asked together.
    whole = np.append(path.scores[last[1:]] != path.scores[last[:-1]], True) if len(last) else np.empty(0, dtype=bool)
    path = replace(path, kept=path.kept[whole], harm=path.harm[whole], gain=path.gain[whole])
    known = ~(np.isnan(drawn.small_cost) | np.isnan(drawn.large_cost))
    spared = savings(path, np.zeros(path.n), np.where(known, drawn.large_cost, np.nan))
    if spared is None:
        return path, None
    surest = np.argsort(-drawn.chances)
    paid = np.append(0.0, np.cumsum(np.where(known, drawn.small_cost, 0.0)[surest]))
    # Asked is whoever reaches the cut, its confidence known or not.
    asked = np.searchsorted(-drawn.chances[surest], -path.scores[path.kept - 1], side="right")
    return path, spared - paid[asked] / float(drawn.large_cost.sum(where=known))


def _certified(
    rest: Pair, signal: str, terms: Terms, gate: Gate, best: Candidate, plain: Certified
) -> tuple[Gate | None, Certified]:
    """What was decided, on the questions that certify. A cut that is walked is known only now."""
    if best.kind == "none":
        return None, plain
    if best.kind == "fixed":
        made = replace(gate, cut=float(best.cut or 0.0))
        return made, certified(gated(rest, made), signal, terms)
    drawn = _Drawn(
        confidence=rest.confidence[signal],
        chances=chances(gate, rest),
        small=rest.small_correct,
        large=rest.large_correct,
        small_cost=rest.small_cost_nano_usd,
        large_cost=rest.large_cost_nano_usd,
        keys=tie_keys(rest),
    )
    path, saving = _along_the_gate(drawn)
    held = replace(along(path, saving, max_drop=terms.max_drop, delta=terms.delta), method=METHOD)
    if held.threshold is None:
        # Nobody is asked: the certificate says so, and the gate as well.
        return replace(gate, cut=1.0), held
    # Whatever the gate lets through is kept, if only its confidence is known.
    return replace(gate, cut=held.threshold), replace(held, threshold=0.0, tie_fraction=1.0)


def _costs(pair: Pair, signal: str, held: Certified, asked: Mask) -> Floats:
    """What each question costs, (n,): the small model where it is asked, and the large one where it is deferred."""
    if held.threshold is None:
        return pair.large_cost_nano_usd
    stated = np.where(asked, pair.confidence[signal], np.nan)
    kept = [
        keeps(None if np.isnan(one) else float(one), str(key), threshold=held.threshold, tie_fraction=held.tie_fraction)
        for one, key in zip(stated, tie_keys(pair), strict=True)
    ]
    return np.where(asked, pair.small_cost_nano_usd, 0.0) + np.where(kept, 0.0, pair.large_cost_nano_usd)


def _savings(costs: Floats, rng: np.random.Generator, settings: Settings) -> tuple[Estimate, Estimate, Estimate]:
    """With the gate, without, and the difference, from costs (n, 3): with, without, and the large model's own."""
    known = costs[~np.isnan(costs).any(axis=1)]
    n = len(known)
    note = f"cost unknown for {len(costs) - n} of {len(costs)}, left out" if n < len(costs) else None
    drawn = Resamples(n, rng=rng, count=settings.resamples).means(known)
    means = known.mean(axis=0)
    values, several = 1 - means[:2] / means[2], 1 - drawn[:, :2] / drawn[:, 2:]
    saved, plain = (estimate_of(float(values[i]), several[:, i], n, settings, note) for i in range(2))
    gain = estimate_of(float(values[0] - values[1]), several[:, 0] - several[:, 1], n, settings, note)
    return saved, plain, gain


def _gate(
    part: Pair, *, hashes: tuple[str | None, str | None], tasks: tuple[str, ...], data_hash: str, created_at: str
) -> Gate:
    seen = [_see(str(text)) for text in part.questions]
    shapes = np.array([one.shape for one in seen], dtype=np.float64)
    means, deviations = shapes.mean(axis=0), shapes.std(axis=0)
    # What never varies says nothing: its column is 0, whatever it is divided by.
    deviations[deviations < 1e-9] = 1.0
    scaled = np.clip((shapes - means) / deviations, -4, 4)
    starts = np.cumsum([0, *(len(one.places) for one in seen)])
    places = np.concatenate([np.fromiter(one.places, dtype=np.int64) for one in seen])
    counts = np.concatenate([np.fromiter(one.places.values(), dtype=np.float64) for one in seen])
    words = csr_matrix((counts, places, starts), shape=(len(seen), PLACES))
    model = logistic(hstack([csr_matrix(scaled), words], format="csr"), part.small_correct, penalty=_PENALTY)
    if model is None:
        # Always right, or always wrong: all are alike. One rule of succession keeps the log-odds finite.
        chance = (float(part.small_correct.sum()) + 1) / (len(part) + 2)
        weights, intercept = np.zeros(len(means) + PLACES), float(np.log(chance / (1 - chance)))
    else:
        weights, intercept = model.coef_[0], float(model.intercept_[0])
    # As they will be in the file, of four bytes.
    coefficients = weights.astype(np.float32).astype(np.float64).tolist()
    traits = zip(means.tolist(), deviations.tolist(), coefficients[: len(means)], strict=True)
    return Gate(
        cut=0.0,
        intercept=intercept,
        traits=tuple(Trait(mean=mean, deviation=deviation, weight=weight) for mean, deviation, weight in traits),
        words=tuple(coefficients[len(means) :]),
        model=hashes[0],
        prompt=hashes[1],
        tasks=tasks,
        n=len(part),
        data_hash=data_hash,
        created_at=created_at,
    )


def _small_hashes(outcomes: Outcomes, pair: Pair) -> tuple[str | None, str | None]:
    """Of the tier that may be skipped; None for foreign outcomes."""
    shapes = dict(zip(outcomes.tiers, outcomes.metadata.get("shapes", ()), strict=False))
    return hashes_of([shapes[pair.small]]) if pair.small in shapes else (None, None)


#: A text is looked at once for all folds.
_see = lru_cache(maxsize=2**12)(see)
