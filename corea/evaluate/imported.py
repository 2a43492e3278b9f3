"""Foreign outcomes: what other tools recorded, one JSON object a line, made into an outcomes file.

Every line is checked before anything is written. What models answered is not known here, so no cascade runs by a
certificate made from such a file; all figures can be had of it.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from corea.errors import InputError
from corea.evaluate.outcomes import CONFIDENCE, write

#: The signal's name where ``confidence`` is a plain number.
PLAIN_SIGNAL = "confidence"

_Probability = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
_Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Count = Annotated[int, Field(ge=0)]


def _by_signal(given: object) -> object:
    return given if isinstance(given, dict) else {PLAIN_SIGNAL: given}


class Line(BaseModel):
    """One attempt of one tier at one question. ``confidence``: a number, or numbers by signal; null is unknown."""

    model_config = ConfigDict(frozen=True, extra="allow", coerce_numbers_to_str=True)

    id: str = Field(min_length=1)
    tier: str = Field(min_length=1)
    correct: _Probability
    confidence: Annotated[dict[str, _Probability | None], BeforeValidator(_by_signal)] = {}
    cost_usd: _Amount | None = None
    prompt_tokens: _Count | None = None
    completion_tokens: _Count | None = None
    latency_ms: _Amount | None = None
    task: str | None = None
    domain: str | None = None
    kind: str | None = None
    question: str | None = None
    gold: str | None = None
    answer: str | None = None
    text: str | None = None
    error: str | None = None
    finish_reason: str | None = None

    @property
    def row(self) -> dict[str, Any]:
        plain = self.model_dump(exclude={"confidence", "cost_usd", "latency_ms", *(self.model_extra or ())})
        return {
            **plain,
            "cost_nano_usd": None if self.cost_usd is None else round(self.cost_usd * 10**9),
            "latency_s": None if self.latency_ms is None else self.latency_ms / 1000,
            **{CONFIDENCE + signal: value for signal, value in self.confidence.items()},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What was taken in. ``ignored``: keys that outcomes have no place for, with how many lines had them."""

    rows: int
    questions: int
    #: Cheapest first.
    tiers: tuple[str, ...]
    signals: tuple[str, ...]
    ordered_by_cost: bool
    ignored: Mapping[str, int] = field(default_factory=dict)


def import_outcomes(source: Path, out: Path) -> Imported:
    """Read foreign outcomes and write them as ours. Raises :class:`InputError` naming the first line that is wrong."""
    ignored: Counter[str] = Counter()
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    digest = hashlib.sha256()
    for number, raw in _lines(source):
        line = _parsed(raw, f"{source}: line {number}")
        digest.update(raw)
        ignored.update(list(line.model_extra or ()))
        if (line.id, line.tier) in rows:
            raise InputError(
                f'{source}: line {number}: "{line.id}" has a row of tier "{line.tier}" already; leave one of them'
            )
        rows[line.id, line.tier] = line.row
    if not rows:
        raise InputError(
            f'{source} holds no outcomes; it needs lines like {{"id": "q1", "tier": "small", "correct": 1}}'
        )
    tiers, by_cost = _cheapest_first(list(rows.values()))
    signals = _signals(list(rows.values()))
    metadata = {"tiers": tiers, "data_hash": digest.hexdigest()[:16], "samples": 0, "imported": True}
    write(out, list(rows.values()), metadata=metadata, signals=signals)
    questions = len({id for id, _ in rows})
    return Imported(
        rows=len(rows), questions=questions, tiers=tiers, signals=signals, ordered_by_cost=by_cost, ignored=ignored
    )


def _lines(source: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with source.open("rb") as file:
            zipped = file.read(2) == b"\x1f\x8b"
        with gzip.open(source, "rb") if zipped else source.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield number, line
    except (OSError, EOFError) as exc:
        raise InputError(f"cannot read {source}: {getattr(exc, 'strerror', None) or exc}; check its path") from exc


def _parsed(raw: bytes, where: str) -> Line:
    try:
        # Python's parser accepts NaN, which then is told apart from what is no JSON.
        return Line.model_validate(json.loads(raw))
    except ValidationError as exc:
        first = exc.errors(include_url=False)[0]
        name = ".".join(dict.fromkeys(str(part) for part in first["loc"])) or "the line"
        given = "" if isinstance(first["input"], dict | list) else f", not {first['input']!r}"
        raise InputError(f"{where}: {name}: {first['msg'].lower()}{given}; correct the line, or leave it out") from exc
    except (ValueError, RecursionError) as exc:
        raise InputError(f"{where}: not JSON ({exc}); write one object a line") from exc


def _cheapest_first(rows: list[dict[str, Any]]) -> tuple[tuple[str, ...], bool]:
    """Tiers by their mean known cost; as they first appear where a tier has none. And whether it was by cost."""
    known: dict[str, list[int]] = {row["tier"]: [] for row in rows}
    for row in rows:
        if row["cost_nano_usd"] is not None:
            known[row["tier"]].append(row["cost_nano_usd"])
    if not all(known.values()):
        return tuple(known), False
    return tuple(sorted(known, key=lambda tier: sum(known[tier]) / len(known[tier]))), True


def _signals(rows: list[dict[str, Any]]) -> tuple[str, ...]:
    """Names of the signals that any row knows a value of."""
    names = {name for row in rows for name, value in row.items() if name.startswith(CONFIDENCE) and value is not None}
    return tuple(sorted(name.removeprefix(CONFIDENCE) for name in names))
