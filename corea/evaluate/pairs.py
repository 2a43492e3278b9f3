"""Outcomes of two tiers, brought side by side: one entry a question. Computes no metric.

Nothing is dropped in silence: what cannot be used is an error, or leaves with a count.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from corea.errors import InputError
from corea.evaluate.outcomes import CONFIDENCE, SIGNAL_COST, Floats, Outcomes, Pair, Strings

#: Columns that no pair holds; the texts of a million replies would be copied for nothing.
_UNUSED = ["kind", "text", "prompt_tokens", "completion_tokens", "latency_s"]


def merge(parts: Sequence[Outcomes]) -> Outcomes:
    """All rows of several files, which must be of the same tiers, models and prompts.

    Raises :class:`InputError` otherwise, and for a row that two files hold.
    """
    first = parts[0]
    if len(parts) == 1:
        return first
    for part in parts[1:]:
        if part.tiers != first.tiers:
            raise InputError(
                f"the files hold other tiers ({', '.join(first.tiers)}; {', '.join(part.tiers)}); evaluate them one by "
                "one, or ask all tiers in one run: corea eval run"
            )
        if part.samples != first.samples:
            raise InputError(
                f"the files hold other samples of self-consistency ({first.samples} and {part.samples}); "
                "evaluate them one by one, or run one of them again with the --samples of the other"
            )
        for tier in first.tiers:
            if part.shape_hash(tier) != first.shape_hash(tier):
                raise InputError(
                    f'the files mix models or prompts: tier "{tier}" was not the same when they were made; '
                    "evaluate them one by one, or run the older one again"
                )
    table = pa.concat_tables([part.table for part in parts], promote_options="default")
    hashes = sorted(str(part.metadata.get("data_hash")) for part in parts)
    metadata = {**first.metadata, "data_hash": hashlib.sha256("\n".join(hashes).encode()).hexdigest()[:16]}
    merged = Outcomes(table=table, metadata=metadata)
    merged.check("the files together")
    return merged


def pair_of(
    outcomes: Outcomes, *, small: str | None = None, large: str | None = None, drop_incomplete: bool = False
) -> tuple[Pair, int]:
    """Two tiers on the questions that both answered, and how many others there are.

    By default the cheapest tier and the dearest. A question is incomplete where a tier has no row or a failed one; that
    is an error unless ``drop_incomplete``. A reply that was cut off has no confidence: a cascade never keeps it.
    Raises :class:`InputError` for outcomes that cannot be paired.
    """
    names = _tiers(outcomes, small, large)
    rows = outcomes.table.drop_columns(_UNUSED)
    answered = pc.is_null(rows["error"])
    sides = [rows.filter(pc.and_(answered, pc.equal(rows["tier"], name))) for name in names]
    both = sides[0].filter(pc.is_in(sides[0]["id"], value_set=sides[1]["id"]))
    asked = rows["id"].unique()
    left_out = len(asked) - len(both)
    if left_out and not drop_incomplete:
        raise InputError(_incomplete(asked, both["id"], rows, names))
    if not len(both):
        raise InputError("no question was answered by both tiers; ask them with: corea eval run")
    other = sides[1].take(pc.index_in(both["id"], value_set=sides[1]["id"]))
    _check_same(both, other, names)
    return _paired(outcomes, both, other, names), left_out


def tie_keys(pair: Pair) -> Strings:
    """What is hashed to split ties, shape (n,): the question as the cascade will see it, or its id if that is all."""
    return pair.questions if has_texts(pair) else pair.ids


def has_texts(pair: Pair) -> bool:
    """Whether every question's text is there."""
    return len(pair.questions) == len(pair) and all(text is not None for text in pair.questions)


def _tiers(outcomes: Outcomes, small: str | None, large: str | None) -> tuple[str, str]:
    tiers = outcomes.tiers
    for name in (small, large):
        if name is not None and name not in tiers:
            raise InputError(f'the outcomes hold no tier "{name}"; they hold: {", ".join(tiers)}')
    chosen = (small or tiers[0], large or tiers[-1])
    if len(tiers) == 1:
        raise InputError(f'the outcomes hold one tier only, "{tiers[0]}"; a cascade needs two: corea eval run')
    if chosen[0] == chosen[1]:
        raise InputError(f'"{chosen[0]}" cannot defer to itself; name two tiers of: {", ".join(tiers)}')
    return chosen


def _incomplete(asked: pa.Array, answered: pa.ChunkedArray, rows: pa.Table, names: tuple[str, str]) -> str:
    missing = asked.filter(pc.invert(pc.is_in(asked, value_set=answered.combine_chunks())))
    first = missing[0].as_py()
    of_first = {row["tier"]: row["error"] for row in rows.filter(pc.equal(rows["id"], first)).to_pylist()}
    tier = next(name for name in names if of_first.get(name, "no row") is not None)
    why = " ".join(of_first.get(tier, "has no row").split())[:160]
    return (
        f"{len(missing)} of {len(asked)} questions lack an answer of {names[0]} or {names[1]} "
        f'(first: "{first}", {tier}: {why}); the same "corea eval run" asks them again, '
        "or leave them out with --drop-incomplete"
    )


def _check_same(small: pa.Table, large: pa.Table, names: tuple[str, str]) -> None:
    for column in ("question", "gold", "task"):
        # A null on either side compares to null, which is no objection.
        same = pc.fill_null(pc.equal(small[column], large[column]), True)
        if not pc.all(same, min_count=0).as_py():
            at = pc.index(same, False).as_py()
            raise InputError(
                f'"{small["id"][at]}" has another {column} in tier {names[0]} than in {names[1]}: '
                "rows of different data were mixed under one id"
            )


def _paired(outcomes: Outcomes, small: pa.Table, large: pa.Table, names: tuple[str, str]) -> Pair:
    cut_off = np.asarray(pc.fill_null(pc.equal(small["finish_reason"], "length"), False))
    known = {name for name in small.column_names if small[name].null_count < len(small)}
    signals = [name for name in outcomes.signals if CONFIDENCE + name in known]
    costs = [name for name in signals if SIGNAL_COST + name in known]
    return Pair(
        small=names[0],
        large=names[1],
        ids=_strings(small["id"]),
        tasks=_strings(pc.coalesce(small["task"], large["task"])),
        small_correct=_floats(small, "correct"),
        large_correct=_floats(large, "correct"),
        small_cost_nano_usd=_floats(small, "cost_nano_usd"),
        large_cost_nano_usd=_floats(large, "cost_nano_usd"),
        confidence={name: np.where(cut_off, np.nan, _floats(small, CONFIDENCE + name)) for name in signals},
        signal_cost_nano_usd={name: _floats(small, SIGNAL_COST + name) for name in costs},
        domains=_strings(pc.coalesce(small["domain"], large["domain"])),
        questions=_strings(pc.coalesce(small["question"], large["question"])),
        answers=_strings(small["answer"]),
        golds=_strings(pc.coalesce(small["gold"], large["gold"])),
    )


def _floats(table: pa.Table, name: str) -> Floats:
    column = table[name].cast(pa.float64())
    values: NDArray[np.float64] = column.to_numpy()
    # Arrow hands out read-only memory.
    return np.where(np.asarray(column.is_null()), np.nan, values)


def _strings(column: pa.ChunkedArray) -> Strings:
    """Shape (n,), None where null; (0,) for a column that is null throughout."""
    return np.array([] if column.null_count == len(column) else column.to_pylist(), dtype=object)
