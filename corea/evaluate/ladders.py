"""Outcomes of many tiers → the best ladder among them, certified as a whole. The statistics are in corea.policy.

A third of the questions chooses: which tiers, judged by which signals, along which path of thresholds. The others
certify that one ladder. A chosen ladder of two is certified by the walk of two tiers. Asks no models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray

from corea.errors import InputError
from corea.evaluate.certification import CHOICE_SHARE, Choice, Terms, best_signal, certificate_of, usable_signals
from corea.evaluate.maps import MIN_QUESTIONS, apply, fit_parameters, split
from corea.evaluate.outcomes import Floats, Outcomes, Pair
from corea.evaluate.pairs import has_texts, pair_of, tie_keys
from corea.identity import as_last, hashes_of, signal_label
from corea.policy.certificate import Certificate
from corea.policy.ladder import Answers, Path, Tally, certify_pair, certify_path, foreseen, path_of, tally
from corea.policy.ladder_certificate import CertifiedLadder, LadderCertificate

MAX_TIERS = 5
#: One tier more must be foreseen to save so much more: it is a model to run, and less is mostly chance.
MIN_GAIN = 0.01
_SALT = "ladder"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """Tiers on the same n questions, cheapest first. ``pairs``: each but the last beside the last, rows alike.

    ``left_out``: questions that one of them did not answer.
    """

    tiers: tuple[str, ...]
    pairs: tuple[Pair, ...]
    left_out: int = 0

    def __len__(self) -> int:
        return len(self.pairs[0])

    def where(self, mask: NDArray[np.bool_]) -> Stack:
        """The same tiers on some of the questions. ``mask``: (n,)."""
        return replace(self, pairs=tuple(pair.where(mask) for pair in self.pairs))

    def without(self, tiers: Sequence[str]) -> Stack:
        """Without some of the tiers, none of them the last."""
        kept = tuple(pair for pair in self.pairs if pair.small not in tiers)
        return replace(self, tiers=(*(pair.small for pair in kept), self.tiers[-1]), pairs=kept)

    def judged_by(self, signals: Mapping[str, str]) -> Answers:
        """As a ladder sees them whose tiers are judged by these signals; what those cost is part of each tier's."""
        judged = [pair.judged_by(signals[pair.small]) for pair in self.pairs]
        last = judged[0]
        return Answers(
            tiers=self.tiers,
            correct=np.column_stack([*(pair.small_correct for pair in judged), last.large_correct]),
            cost=np.column_stack([*(pair.small_cost_nano_usd for pair in judged), last.large_cost_nano_usd]),
            confidence=np.column_stack([pair.confidence[signals[pair.small]] for pair in judged]),
            keys=tie_keys(last),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """Tiers that could make a ladder, and the saving that the choosing questions let one expect to certify."""

    tiers: tuple[str, ...]
    foreseen: float

    @property
    def told(self) -> str:
        return f"{' → '.join(self.tiers)} would save {self.foreseen:.1%}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tried:
    columns: list[int]
    path: Path
    counted: Tally


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The ladder that was chosen on ``chosen_on`` questions and certified on the others; ``candidates``: best first."""

    ladder: CertifiedLadder
    candidates: tuple[Candidate, ...]
    chosen_on: int
    notes: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """Whether more tiers than two are worth it, as the choosing questions see it."""
        seen = f"By the {self.chosen_on:,} questions that chose"
        if max(one.foreseen for one in self.candidates) <= 0:
            return f"{seen}, no ladder would save anything that could be certified."
        pair = next(one for one in self.candidates if len(one.tiers) == 2)
        more = next((one for one in self.candidates if len(one.tiers) > 2), None)
        if more is None:
            return f"{seen}, {pair.told}."
        if len(self.ladder.tiers) > 2:
            return f"{seen}, {more.told}; the best pair, {pair.told}."
        adds = "nothing" if more.foreseen <= pair.foreseen else "too little"
        return f"{seen}, the pair {pair.told}; a third tier adds {adds}: {more.told}."


def stack_of(outcomes: Outcomes, *, tiers: Sequence[str] = (), drop_incomplete: bool = False) -> Stack:
    """The named tiers (by default all), on the questions that all of them answered.

    They go from cheap to dear in the order of the outcomes, or as named. Raises :class:`InputError` for costs that are
    out of that order, for too many tiers, and for outcomes that cannot be paired.
    """
    names = tuple(dict.fromkeys(tiers)) or outcomes.tiers
    if len(names) < 2:
        raise InputError(
            f'a ladder needs two tiers or more, not only "{names[0]}"; there are: {_listed(outcomes.tiers)}'
        )
    if len(names) > MAX_TIERS:
        raise InputError(f"{len(names)} tiers are too many to try every ladder; name up to {MAX_TIERS} with --tiers")
    # By id, or the rows of one pair would stand in another order than those of the next.
    rows = replace(outcomes, table=outcomes.table.sort_by("id"))
    found = [pair_of(rows, small=name, large=names[-1], drop_incomplete=drop_incomplete) for name in names[:-1]]
    asked = len(found[0][0]) + found[0][1]
    shared = set.intersection(*({str(one) for one in pair.ids} for pair, _ in found))
    if not shared:
        raise InputError(f"no question was answered by all of {_listed(names)}; ask them with: corea eval run")
    pairs = tuple(pair.where(np.array([str(one) in shared for one in pair.ids])) for pair, _ in found)
    _check_order(names, pairs)
    return Stack(tiers=names, pairs=pairs, left_out=asked - len(shared))


def signals_of(stack: Stack, choosing: NDArray[np.bool_], outcomes: Outcomes, named: str | None) -> dict[str, str]:
    """By tier, the named signal, or the best one by the choosing questions. Tiers that have none are not in it.

    Raises :class:`InputError` where no tier has one, or where the named one is none that a cascade can be judged by.
    """
    chosen: dict[str, str] = {}
    for pair in stack.where(choosing).pairs:
        usable = usable_signals(outcomes, pair)
        known = [name for name in usable if (~np.isnan(pair.confidence[name])).sum() >= MIN_QUESTIONS]
        if named is not None:
            known = [name for name in known if name == named]
        if known:
            chosen[pair.small] = best_signal(replace(pair, confidence={name: pair.confidence[name] for name in known}))
    if not chosen:
        what = "a confidence" if named is None else f"the confidence {named}, or none that a cascade can be judged by"
        raise InputError(
            f"no tier but the last has {what} on {MIN_QUESTIONS} of the {int(choosing.sum())} questions that choose, "
            "and without one nothing can be kept; run the tiers with: corea eval run, or import rows with a confidence"
        )
    return chosen


def find(outcomes: Outcomes, stack: Stack, terms: Terms, *, signal: str | None = None) -> tuple[Found, dict[str, str]]:
    """The best ladder of these tiers, and the signal of each tier. Raises :class:`InputError` for too few questions."""
    choosing = choosing_of(stack)
    signals = signals_of(stack, choosing, outcomes, signal)
    silent = [name for name in stack.tiers[:-1] if name not in signals]
    notes = [f"{name} has no confidence that could be used, so it is in no ladder" for name in silent]
    found = search(stack.without(silent).judged_by(signals), choosing, terms)
    return replace(found, notes=(*notes, *found.notes)), signals


def choosing_of(stack: Stack) -> NDArray[np.bool_]:
    """The questions that choose, by a hash of the id: (n,). Raises :class:`InputError` where they are too few."""
    choosing = split(stack.pairs[0].ids, share=CHOICE_SHARE, salt=_SALT)
    if choosing.sum() < MIN_QUESTIONS or choosing.all():
        raise InputError(
            f"{len(stack)} questions are too few to choose a ladder on a third of them and certify it on the others; "
            "evaluate some hundreds more: corea eval run"
        )
    return choosing


def search(answers: Answers, choosing: NDArray[np.bool_], terms: Terms) -> Found:
    """Try every ladder that ends in the last tier on the choosing questions, and certify the best on the others.

    ``choosing``: (n,), independent of what was answered. Raises :class:`InputError` for costs of which none is known.
    """
    part, rest = answers.where(choosing), answers.where(~choosing)
    losses, others = net_losses(part), range(len(answers.tiers) - 1)
    picks = [picked for size in others for picked in combinations(others, size + 1)]
    tried = [_try(part, losses, picked) for picked in picks]
    hopes = [_hope(one, len(rest), terms) for one in tried]
    # Where none would pass, the one that would with many more questions, to tell how many those are.
    judged = hopes if max(hopes) > 0 else [_hope(one, 10 * len(rest), terms) for one in tried]
    # The first of equals: it has the fewest and the cheapest tiers.
    best = tried[int(np.argmax([hope - MIN_GAIN * len(one.columns) for one, hope in zip(tried, judged, strict=True)]))]
    certifying = rest.of(best.columns)
    limits = {"max_drop": terms.max_drop, "delta": terms.delta}
    ladder = (
        certify_pair(certifying, **limits) if len(best.columns) == 2 else certify_path(best.path, certifying, **limits)
    )
    candidates = [
        Candidate(tiers=tuple(answers.tiers[at] for at in one.columns), foreseen=hope)
        for one, hope in zip(tried, hopes, strict=True)
    ]
    candidates.sort(key=lambda one: -one.foreseen)
    return Found(ladder=ladder, candidates=tuple(candidates), chosen_on=len(part), notes=_notes(part))


def _try(part: Answers, losses: Floats, picked: Sequence[int]) -> _Tried:
    columns = [*picked, len(part.tiers) - 1]
    few = part.of(columns)
    path = path_of(few, losses[:, list(picked)])
    return _Tried(columns=columns, path=path, counted=tally(path, few))


def _hope(one: _Tried, n: int, terms: Terms) -> float:
    return foreseen(one.counted, n=n, max_drop=terms.max_drop, delta=terms.delta)


def net_losses(answers: Answers) -> Floats:
    """What keeping an answer is thought to lose, given its confidence, (n, k − 1): P(last right) − P(tier right).

    Both by Platt's logistic curve; NaN where the confidence is unknown.
    """
    right = answers.correct[:, -1]
    columns = []
    for tier, stated in enumerate(answers.confidence.T):
        own, other = (fit_parameters("platt", stated[:, None], grades) for grades in (answers.correct[:, tier], right))
        columns.append(apply(other, stated[:, None]) - apply(own, stated[:, None]))
    return np.column_stack(columns)


def certificate_of_ladder(
    outcomes: Outcomes, stack: Stack, found: Found, signals: Mapping[str, str], *, created_at: str
) -> Certificate | LadderCertificate:
    """The artifact: of two tiers, the certificate that any cascade of two obeys; of more, one for them all."""
    ladder = found.ladder
    few = stack.where(~choosing_of(stack)).without([name for name in stack.tiers[:-1] if name not in ladder.tiers])
    if len(ladder.tiers) == 2:
        (pair,) = few.pairs
        terms = Terms(max_drop=ladder.max_drop, delta=ladder.delta)
        choice = Choice(pair=pair, signal=signals[pair.small], chosen_on=found.chosen_on)
        return certificate_of(outcomes, choice, terms, created_at=created_at)
    shapes = dict(zip(outcomes.tiers, outcomes.metadata.get("shapes", ()), strict=False))
    known = all(name in shapes for name in ladder.tiers)
    own = [*(shapes[name] for name in ladder.tiers[:-1]), as_last(shapes[ladder.last])] if known else []
    models, prompts = hashes_of(own) if known else (None, None)
    return LadderCertificate(
        certified=ladder,
        tiers=ladder.tiers,
        signals={name: signal_label(signals[name], samples=outcomes.samples) for name in ladder.tiers[:-1]},
        guards=few.pairs[0].guards,
        tie_key="question" if has_texts(few.pairs[0]) else "id",
        tasks=tuple(sorted({str(task) for task in few.pairs[0].tasks if task is not None})),
        models_hash=models,
        prompts_hash=prompts,
        data_hash=str(outcomes.metadata.get("data_hash", "")),
        created_at=created_at,
    )


def _check_order(names: Sequence[str], pairs: Sequence[Pair]) -> None:
    priced = [(pair.small, pair.small_cost_nano_usd) for pair in pairs] + [(names[-1], pairs[0].large_cost_nano_usd)]
    means = [(name, float(np.nanmean(cost))) for name, cost in priced if not np.isnan(cost).all()]
    for (cheap, low), (dear, high) in pairwise(means):
        if low > high:
            order = ",".join(name for name, _ in sorted(means, key=lambda one: one[1]))
            raise InputError(
                f"tiers go from cheap to dear, but a question costs {low:,.0f} nano-USD at {cheap} and {high:,.0f} at "
                f"{dear} after it; correct their prices, or name them in another order: --tiers {order}"
            )


def _notes(part: Answers) -> tuple[str, ...]:
    """What the choosing questions say of tiers that can hardly help."""
    right, cost = part.correct.mean(axis=0), part.cost[part.priced].mean(axis=0)
    told = []
    for dear, name in enumerate(part.tiers):
        better = [one for one in range(dear) if right[one] >= right[dear] and cost[one] <= cost[dear]]
        if not better:
            continue
        best = max(better, key=lambda one: float(right[one]))
        less = f"{name} is no more often right than {part.tiers[best]} ({right[dear]:.1%} and {right[best]:.1%})"
        is_last = dear == len(part.tiers) - 1
        told.append(f"{less} and costs no less" + (", and yet it is what is promised against" if is_last else ""))
    for name, stated in zip(part.tiers, part.confidence.T, strict=False):
        if len(np.unique(stated[~np.isnan(stated)])) == 1:
            told.append(f"{name} is equally sure of all its answers, so chance alone picks those that it keeps")
    return tuple(told)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)
