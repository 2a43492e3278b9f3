"""From the outcomes of two tiers to every figure of a report. Draws nothing and writes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from corea import __version__
from corea.evaluate.baselines import Baseline, compare
from corea.evaluate.curves import (
    area_under,
    deferral_curve,
    reliability,
    risk_coverage,
    share_of_oracle_saving,
)
from corea.evaluate.maps import split
from corea.evaluate.metrics import DEFAULT, Resamples, Settings, check_correct, measure, rank
from corea.evaluate.outcomes import Pair, Strings
from corea.evaluate.report import words
from corea.evaluate.report.figures import (
    Costs,
    Fate,
    Report,
    RiskPoint,
    SignalFigures,
)
from corea.evaluate.report.gallery import confident_but_wrong, is_wrong
from corea.evaluate.report.operation import certification_of, choose, known_costs, operate
from corea.evaluate.report.slices import failing_slices

#: Tasks, and domains, that get figures of their own, the largest first.
MAX_GROUPS = 60
#: Questions that the router is learned on and judged on, at most: it takes longer than all else together.
MAX_ROUTED = 20_000
#: Points of a curve: more than a chart of this width can show.
CURVE_POINTS = 80

Mask = NDArray[np.bool_]


def report(
    pair: Pair,
    *,
    signal: str | None,
    max_drop: float,
    delta: float,
    rng: np.random.Generator,
    title: str,
    source: str,
    candidates: Sequence[str] | None = None,
    data_hash: str | None = None,
    created_at: str | None = None,
    settings: Settings = DEFAULT,
) -> Report:
    """All figures of a pair. ``signal`` is the one that is certified, at a drop of ``max_drop`` and risk ``delta``.

    None chooses among ``candidates`` (None: all signals) on a third of the questions, and certifies on the rest.
    ``source``: where the outcomes come from, for the reader. Raises :class:`InputError` for no questions, grades
    outside [0, 1] or a signal that is not there.
    """
    small_correct, _ = check_correct(pair.small_correct), check_correct(pair.large_correct)
    choice, certifying = choose(pair, signal, candidates)
    chosen = choice.signal
    certification = certification_of(pair, certifying, chosen, max_drop=max_drop, delta=delta)
    resamples = Resamples(len(pair), rng=rng, count=settings.resamples)
    operation, kept = operate(pair, chosen, certification, max_drop=max_drop, resamples=resamples, settings=settings)
    capped, notes = _capped(pair)
    groups = measure(capped, rng=rng, settings=settings)
    baselines, frontier_note = _baselines(pair, rng, settings)
    # Where no threshold is worth anything, what there is to learn is in all the answers.
    looked = kept if operation.by != "none" else _answered(pair, chosen)
    asked = pair.questions[looked] if len(pair.questions) else pair.questions
    return Report(
        title=title,
        source=source,
        data_hash=data_hash,
        created_at=created_at,
        versions={"corea": __version__, **{name: version(name) for name in ("numpy", "scipy", "scikit-learn")}},
        small=pair.small,
        large=pair.large,
        n=len(pair),
        max_drop=max_drop,
        delta=delta,
        headline=words.headline(pair, groups[0], choice, certification, operation, max_drop=max_drop),
        notes=tuple(notes),
        choice=choice,
        certification=certification,
        operation=operation,
        groups=groups,
        signals=tuple(_signal(pair, name, max_drop) for name in pair.confidence),
        baselines=baselines,
        frontier_note=frontier_note,
        fates=tuple(_fates(capped, kept)),
        costs=_costs(pair if chosen is None else pair.judged_by(chosen), kept),
        gallery=confident_but_wrong(pair, chosen, looked),
        slices=failing_slices(_labels(pair.tasks, len(pair))[looked], asked, is_wrong(small_correct)[looked]),
    )


def _answered(pair: Pair, signal: str | None) -> Mask:
    """Every answer with a known confidence; every answer where there is none."""
    if signal is None or np.isnan(pair.confidence[signal]).all():
        return np.ones(len(pair), dtype=np.bool_)
    return ~np.isnan(pair.confidence[signal])


def _labels(labels: Strings, n: int) -> Strings:
    """Of every question; None where there are none."""
    return labels if len(labels) else np.full(n, None, dtype=object)


def _capped(pair: Pair) -> tuple[Pair, list[str]]:
    """The pair with only its largest tasks and domains named, and what a reader should know of all its figures."""
    averaged = "Grades are averages of several attempts; an answer counts as wrong where it mostly was."
    tasks, of_tasks = _largest(pair.tasks, "tasks")
    domains, of_domains = _largest(pair.domains, "domains")
    notes = [averaged if _averaged(pair) else None, of_tasks, of_domains]
    return replace(pair, tasks=tasks, domains=domains), [note for note in notes if note]


def _largest(labels: Strings, plural: str) -> tuple[Strings, str | None]:
    sizes = Counter(label for label in labels if label is not None)
    if len(sizes) <= MAX_GROUPS:
        return labels, None
    named = set(sorted(sizes, key=lambda label: (-sizes[label], label))[:MAX_GROUPS])
    note = (
        f"There are {len(sizes):,} {plural}: the {MAX_GROUPS} largest have figures of their own, and all of them count "
        "in the figures of all questions."
    )
    return np.array([label if label in named else None for label in labels], dtype=object), note


def _averaged(pair: Pair) -> bool:
    return bool(((pair.small_correct % 1 != 0) | (pair.large_correct % 1 != 0)).any())


def _baselines(pair: Pair, rng: np.random.Generator, settings: Settings) -> tuple[tuple[Baseline, ...], str | None]:
    known, note = known_costs(pair)
    pair = pair if known.all() else pair.where(known)
    if len(pair) <= MAX_ROUTED or not len(pair.questions):
        return compare(pair, rng=rng, settings=settings), note
    # The router reads every text ten times over; all else on the page is quick.
    some = pair.where(split(pair.ids, share=MAX_ROUTED / len(pair), salt="routed"))
    told = f"learned and judged on {len(some):,} of the questions, taken by a hash of their ids"
    alone = replace(some, confidence={}, signal_cost_nano_usd={})
    (router,) = (one for one in compare(alone, rng=rng, settings=settings) if one.name == "router")
    router = replace(router, note="; ".join(filter(None, (router.note, told))))
    textless = replace(pair, questions=pair.questions[:0])
    found = compare(textless, rng=rng, settings=settings)
    return tuple(router if one.name == "router" else one for one in found), note


def _signal(pair: Pair, name: str, max_drop: float) -> SignalFigures:
    known, _ = known_costs(pair)
    paid = pair.judged_by(name)
    ranked = rank(paid.confidence[name])
    risk = risk_coverage(paid.small_correct, ranked)
    risk = risk.thin(CURVE_POINTS) if len(risk.coverage) else risk
    priced = paid.where(known)
    curve = deferral_curve(priced, rank(priced.confidence[name]))
    return SignalFigures(
        name=name,
        reliability=tuple(reliability(paid.small_correct, ranked)),
        reliability_equal_mass=tuple(reliability(paid.small_correct, ranked, equal_mass=True)),
        risk_coverage=tuple(
            RiskPoint(threshold=float(threshold), coverage=float(coverage), risk=float(wrong))
            for threshold, coverage, wrong in zip(risk.thresholds, risk.coverage, risk.risk, strict=True)
        ),
        area_under_frontier=area_under(curve),
        share_of_oracle_saving=share_of_oracle_saving(curve, priced, epsilon=max_drop),
        note=risk.note,
    )


def _fates(pair: Pair, kept: Mask) -> Iterator[Fate]:
    wrong = kept & is_wrong(pair.small_correct)
    by: Literal["task", "domain"]
    for by, labels in (("task", pair.tasks), ("domain", pair.domains)):
        for name in sorted({label for label in labels if label is not None}):
            inside = labels == name
            n, held = int(inside.sum()), int(kept[inside].sum())
            share = binomtest(n - held, n).proportion_ci(method="wilson")
            yield Fate(
                by=by,
                name=str(name),
                n=n,
                kept=held,
                kept_wrong=int(wrong[inside].sum()),
                deferral_rate=1 - held / n,
                low=float(share.low),
                high=float(share.high),
            )


def _costs(pair: Pair, kept: Mask) -> Costs:
    """At the threshold; where nothing is kept the small model is not asked, and costs nothing."""
    known, note = known_costs(pair)
    small = pair.small_cost_nano_usd[known] if kept.any() else np.zeros(int(known.sum()))
    large = pair.large_cost_nano_usd[known]
    return Costs(
        n=int(known.sum()),
        small_nano_usd=_sum(small),
        deferred_nano_usd=_sum(large[~kept[known]]),
        large_alone_nano_usd=_sum(large),
        note=note,
    )


def _sum(values: NDArray[np.float64]) -> float | None:
    total = float(values.sum())
    return None if np.isnan(total) else total
