"""Foreign outcomes: what other tools recorded, one JSON object a line, made into an outcomes file.

Every line is checked before anything is written. What models answered is not known here, so no cascade runs by a
certificate made from such a file; all figures can be had of it.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from corea.batch.rows import opened
from corea.errors import InputError
from corea.evaluate.outcomes import CONFIDENCE, write

#: The signal's name where ``confidence`` is a plain number.
PLAIN_SIGNAL = "confidence"

_Probability = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
# A million dollars, or a million seconds, is no cost or latency of one answer; and all must fit 64 bits.
_Usd = Annotated[float, Field(ge=0, le=10**6, allow_inf_nan=False)]
_Milliseconds = Annotated[float, Field(ge=0, le=10**9, allow_inf_nan=False)]
_Count = Annotated[int, Field(ge=0, le=10**12)]
_Signal = Annotated[str, Field(min_length=1)]
# JSON can spell half a surrogate pair; Arrow, whose texts are UTF-8, cannot.
_Text = Annotated[str, AfterValidator(lambda text: text.encode(errors="replace").decode())]
# Many tools write "" for none.
_Error = Annotated[_Text | None, AfterValidator(lambda told: told or None)]


def _by_signal(given: object) -> object:
    return given if isinstance(given, dict) else {PLAIN_SIGNAL: given}


class Line(BaseModel):
    """One attempt of one tier at one question. ``confidence``: a number, or numbers by signal; null is unknown."""

    model_config = ConfigDict(frozen=True, extra="allow", coerce_numbers_to_str=True)

    id: str = Field(min_length=1)
    tier: str = Field(min_length=1)
    correct: _Probability
    confidence: Annotated[dict[_Signal, _Probability | None], BeforeValidator(_by_signal)] = {}
    cost_usd: _Usd | None = None
    prompt_tokens: _Count | None = None
    completion_tokens: _Count | None = None
    latency_ms: _Milliseconds | None = None
    task: _Text | None = None
    domain: _Text | None = None
    kind: _Text | None = None
    question: _Text | None = None
    gold: _Text | None = None
    answer: _Text | None = None
    text: _Text | None = None
    error: _Error = None
    finish_reason: _Text | None = None

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
    if source.resolve() == out.resolve():
        raise InputError(f"{out} is the input; choose another --out")
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
        rows=len(rows), questions=questions, tiers=tiers, signals=signals, ordered_by_cost=by_cost,
        ignored=dict(ignored),
    )  # fmt: skip


def _lines(source: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with opened(source) as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield number, line
    except (OSError, EOFError, zlib.error) as exc:
        raise InputError(f"cannot read {source}: {getattr(exc, 'strerror', None) or exc}; check its path") from exc


def _parsed(raw: bytes, where: str) -> Line:
    try:
        # Python's parser accepts NaN, which then is told apart from what is no JSON.
        values = json.loads(raw)
    except (ValueError, RecursionError) as exc:
        raise InputError(f"{where}: not JSON ({exc}); write one object a line") from exc
    if not isinstance(values, dict):
        raise InputError(f"{where}: not a JSON object; write one object a line")
    try:
        return Line.model_validate(values)
    except ValidationError as exc:
        first = exc.errors(include_url=False)[0]
        name = ".".join(dict.fromkeys(str(part) for part in first["loc"]))
        given = "" if isinstance(first["input"], dict | list) else f", not {repr(first['input'])[:80]}"
        raise InputError(f"{where}: {name}: {first['msg'].lower()}{given}; correct the line, or leave it out") from exc


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
