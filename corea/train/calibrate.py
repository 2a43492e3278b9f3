"""The ``calibrate`` stage: both models on the questions held out, and a confidence map for the tier as it is served.

The asking is that of ``corea eval run``, row by row, so that it can be gone on with, and what it leaves under
``calibrate/outcomes.parquet`` is what every verb of ``corea eval`` reads. Knows no training.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from datetime import datetime

import numpy as np

from corea.batch.rows import Question
from corea.confidence import fitted
from corea.errors import InputError
from corea.evaluate.certification import fit_map
from corea.evaluate.outcomes import Outcomes, Pair
from corea.evaluate.outcomes import read as read_outcomes
from corea.evaluate.run import Plan
from corea.evaluate.run import run as run_plan
from corea.identity import hash_of
from corea.train import report
from corea.train.config import TrainConfig
from corea.train.data import write
from corea.train.served import SIGNAL, Served, tier_toml
from corea.train.stages import claim, told

#: Of the questions held out, those the map is fitted on; the others check it.
FIT_SHARE = 0.5


def chosen(questions: Sequence[Question], limit: int, *, seed: int) -> list[Question]:
    """At most so many, of all sources alike. Raises :class:`InputError` where none is held out."""
    if not questions:
        raise InputError("no question is held out, so nothing can be measured; set data.held_out above 0, such as 0.1")
    rng = random.Random(seed)  # noqa: S311 - a choice of questions, no secret
    kept = {question.id for question in rng.sample(list(questions), min(limit, len(questions)))}
    return [question for question in questions if question.id in kept]


async def measure(
    config: TrainConfig,
    questions: Sequence[Question],
    served: Served,
    *,
    fingerprint: str,
    on_start: Callable[[int, int], None],
    on_row: Callable[[object], None],
) -> Outcomes:
    """Ask both what was not asked yet. Raises :class:`InputError` where attempts failed, or for another run's rows."""
    folder = config.output / "calibrate"
    claim(folder, f"{fingerprint}-{hash_of(list(served.shapes))}")
    write(questions, config.output / "held-out.jsonl")
    plan = Plan(
        questions=questions,
        tiers=served.tiers,
        out=folder / "outcomes.parquet",
        shapes=served.shapes,
        concurrency=config.calibrate.batch,
    )
    with told(folder, lower="calibrate.batch or calibrate.max_tokens"):
        failed = await run_plan(plan, on_start=on_start, on_row=on_row)
    outcomes = read_outcomes(plan.out)
    if failed == len(questions) * len(served.tiers):
        why = " ".join(str(outcomes.table["error"][0]).split())[:160]
        raise InputError(f"not one reply could be had ({why}); check [calibrate] and run the same command again")
    return outcomes


def concluded(config: TrainConfig, outcomes: Outcomes, served: Served, *, engine: str, now: datetime) -> report.Report:
    """The report, written to ``output`` with the map and the tier's configuration, where there can be one."""
    before, after, pair, left_out = report.sides(outcomes, rng=np.random.default_rng(0))
    fit, no_fit = _fitted(config, outcomes, pair, served, now)
    made = report.Report(
        base=config.base,
        engine=engine,
        temperature=config.calibrate.temperature,
        questions=len(pair),
        left_out=left_out,
        before=before,
        after=after,
        fit=fit,
        no_fit=no_fit,
        created_at=now.isoformat(timespec="seconds"),
    )
    report.save(made, config.output)
    if served.tier is not None:
        map_path = config.output / "map.json" if fit else None
        (config.output / "tier.toml").write_text(tier_toml(served.tier, map=map_path), encoding="utf-8")
    return made


def commands(config: TrainConfig) -> tuple[str, str]:
    """What fits a map once a tier serves the adapter: on that tier's own outcomes, as no others would be accepted."""
    out = config.output
    return (
        f"corea eval run --data {out / 'held-out.jsonl'} --out {out / 'outcomes.parquet'}",
        f"corea eval fit {out / 'outcomes.parquet'} --kind {config.calibrate.method} --signal {SIGNAL} "
        f"--out {out / 'map.json'}",
    )


def _fitted(
    config: TrainConfig, outcomes: Outcomes, pair: Pair, served: Served, now: datetime
) -> tuple[report.Fit | None, str | None]:
    """The map, written; or why there is none."""
    path = config.output / "map.json"
    if served.tier is None:
        first, second = commands(config)
        return None, (
            "it holds for one tier only, and how this adapter will be served is not known here. Name it as the first "
            f'tier of corea.toml, with confidence = {{ estimator = "{SIGNAL}" }}, then run: {first} and: {second}'
        )
    created_at = now.isoformat(timespec="seconds")
    try:
        made = fit_map(outcomes, pair, config.calibrate.method, (SIGNAL,), share=FIT_SHARE, created_at=created_at)
    except InputError as exc:
        # Too few questions, or not one digit: the rest of the report stands.
        path.unlink(missing_ok=True)
        return None, str(exc)
    fitted.save(made.map, path)
    return report.fit_of(made, path), None
