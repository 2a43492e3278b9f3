"""Outcomes: graded attempts of every tier at every question, as a Parquet file and as arrays.

One row a question and tier. The columns of version 1 are :data:`SCHEMA`, then for each signal ``confidence.<signal>``,
a probability or null where it is unknown, and ``signal_cost_nano_usd.<signal>``, the price of the calls made only to
learn it: 0 for one that is read off the reply, null where it is unknown. The metadata (key ``corea.outcomes``) is a
JSON object with ``version``, ``tiers`` (names, cheapest first), ``data_hash``, ``samples`` of self-consistency, and,
where COREA asked the models itself, ``shapes`` and ``shape_hashes``: what of each tier shapes its answers.

Knows no models and computes no metric.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from corea.errors import InputError

VERSION = 1
CONFIDENCE = "confidence."
SIGNAL_COST = "signal_cost_nano_usd."
_METADATA_KEY = b"corea.outcomes"

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("tier", pa.string(), nullable=False),
        pa.field("task", pa.string()),
        pa.field("domain", pa.string()),
        pa.field("kind", pa.string()),
        pa.field("question", pa.string()),
        pa.field("gold", pa.string()),
        pa.field("answer", pa.string()),
        pa.field("text", pa.string()),
        #: 0 to 1, a fraction where several samples were averaged. A failed attempt is 0, with its error.
        pa.field("correct", pa.float64(), nullable=False),
        pa.field("error", pa.string()),
        pa.field("finish_reason", pa.string()),
        pa.field("prompt_tokens", pa.int64()),
        pa.field("completion_tokens", pa.int64()),
        pa.field("cost_nano_usd", pa.int64()),
        pa.field("latency_s", pa.float64()),
    ]
)

_REQUIRED = tuple(one.name for one in SCHEMA if not one.nullable)

#: Small-model replies that a signal needs where its cost was not recorded, the answer itself among them.
REPLIES: Mapping[str, float] = MappingProxyType({"self_consistency": 6.0})

Floats = NDArray[np.float64]
Strings = NDArray[np.object_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two tiers on the same n questions, aligned: what every metric and certificate is computed from.

    ``small_correct``, ``large_correct``: shape (n,), 0 to 1. ``small_cost_nano_usd``, ``large_cost_nano_usd``: shape
    (n,), NaN where unknown. ``confidence``: each signal of the small tier, shape (n,), a probability or NaN (unknown);
    ``signal_cost_nano_usd``: what learning it costs beyond the reply, likewise, for those of which it is recorded.
    """

    small: str
    large: str
    ids: Strings
    tasks: Strings
    small_correct: Floats
    large_correct: Floats
    small_cost_nano_usd: Floats
    large_cost_nano_usd: Floats
    confidence: Mapping[str, Floats]
    signal_cost_nano_usd: Mapping[str, Floats] = field(default_factory=dict)
    domains: Strings = field(default_factory=lambda: np.array([], dtype=object))
    questions: Strings = field(default_factory=lambda: np.array([], dtype=object))
    answers: Strings = field(default_factory=lambda: np.array([], dtype=object))
    golds: Strings = field(default_factory=lambda: np.array([], dtype=object))
    #: Labels of the guards whose objections are unknown confidences here; see :mod:`corea.evaluate.guarded`.
    guards: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    def where(self, mask: NDArray[np.bool_]) -> Pair:
        """The same two tiers on some of the questions. ``mask``: shape (n,)."""
        taken = {name: value[mask] if len(value := getattr(self, name)) else value for name in _ARRAYS}
        signals = {name: values[mask] for name, values in self.confidence.items()}
        costs = {name: values[mask] for name, values in self.signal_cost_nano_usd.items()}
        return replace(self, confidence=signals, signal_cost_nano_usd=costs, **taken)

    def judged_by(self, signal: str) -> Pair:
        """As a cascade sees it that asks for this one signal: its cost is part of the small model's.

        Raises :class:`InputError` for a signal that was not collected.
        """
        if signal not in self.confidence:
            known = ", ".join(self.confidence) or "none"
            raise InputError(f"the outcomes hold no confidence signal {signal!r}; they hold: {known}")
        if signal in self.signal_cost_nano_usd:
            cost = self.small_cost_nano_usd + self.signal_cost_nano_usd[signal]
        else:
            cost = self.small_cost_nano_usd * REPLIES.get(signal, 1.0)
        # Judged twice, it is not paid for twice.
        paid = {signal: np.zeros(len(self))}
        only = {signal: self.confidence[signal]}
        return replace(self, confidence=only, small_cost_nano_usd=cost, signal_cost_nano_usd=paid)


_ARRAYS = (
    "ids", "tasks", "small_correct", "large_correct", "small_cost_nano_usd", "large_cost_nano_usd", "domains",
    "questions", "answers", "golds",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcomes:
    """All rows, with what the file says of itself."""

    table: pa.Table
    metadata: Mapping[str, Any]

    @property
    def tiers(self) -> tuple[str, ...]:
        """Names, cheapest first."""
        return tuple(self.metadata["tiers"])

    @property
    def signals(self) -> tuple[str, ...]:
        names = self.table.column_names
        return tuple(name.removeprefix(CONFIDENCE) for name in names if name.startswith(CONFIDENCE))

    @property
    def samples(self) -> int:
        """Extra answers that self-consistency was read from."""
        return int(self.metadata.get("samples") or 0)

    def shape_hash(self, tier: str) -> str | None:
        """Of all that shapes the tier's answers; None for foreign outcomes, of which nobody knows."""
        found = self.metadata.get("shape_hashes", {}).get(tier)
        return None if found is None else str(found)

    def check(self, source: str) -> None:
        """Raises :class:`InputError` for what cannot be; ``source`` is named in the message."""
        table = self.table
        _check_columns(table, source)
        if strangers := [name for name in pc.unique(table["tier"]).to_pylist() if name not in self.tiers]:
            raise InputError(
                f'{source} has rows of tier "{strangers[0]}", which is none of its tiers ({", ".join(self.tiers)}); '
                "make it again with: corea eval run"
            )
        for tier in self.tiers:
            _check_unique(table["id"].filter(pc.equal(table["tier"], tier)), tier, source)
        for name in ("correct", *(CONFIDENCE + signal for signal in self.signals)):
            column = table[name]
            # NaN fails both comparisons; null, which is unknown, is no objection.
            fits = pc.fill_null(pc.and_(pc.greater_equal(column, 0.0), pc.less_equal(column, 1.0)), True)
            if not pc.all(fits, min_count=0).as_py():
                at = pc.index(fits, False).as_py()
                where = f'"{table["id"][at]}", tier "{table["tier"][at]}"'
                raise InputError(
                    f"{source}: {name} of {where} is {column[at]}; it must lie in [0, 1], or be null if it is unknown"
                )


def write(
    path: Path, rows: Sequence[Mapping[str, Any]], *, metadata: Mapping[str, Any], signals: Sequence[str]
) -> None:
    """Write outcomes, atomically. Rows have the keys of the schema; what is absent is null.

    Raises :class:`InputError` where the file cannot be written.
    """
    fields = [
        *SCHEMA,
        *(pa.field(CONFIDENCE + signal, pa.float64()) for signal in signals),
        *(pa.field(SIGNAL_COST + signal, pa.int64()) for signal in signals),
    ]
    save(Outcomes(table=pa.Table.from_pylist(list(rows), schema=pa.schema(fields)), metadata=metadata), path)


def save(outcomes: Outcomes, path: Path) -> None:
    """Write outcomes that are a table already, atomically. Raises :class:`InputError` where the file cannot be."""
    described = json.dumps({**outcomes.metadata, "version": VERSION}, sort_keys=True).encode()
    table = outcomes.table.replace_schema_metadata({_METADATA_KEY: described})
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            # Without a checksum a flipped bit in a page is another number, not an error.
            pq.write_table(table, file, compression="zstd", write_page_checksum=True)
        partial.replace(path)
    except OSError as exc:
        partial.unlink(missing_ok=True)
        raise InputError(f"cannot write {path}: {exc.strerror or exc}; choose another --out") from exc


def read(path: Path) -> Outcomes:
    """Read outcomes. Raises :class:`InputError` for a file that is damaged, of another kind or of a newer version.

    So does a value that cannot be: a repeated row, or a number outside [0, 1] or NaN where a probability belongs.
    """
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            table = file.read()
            names = table.column_names
    except (OSError, pa.ArrowException, UnicodeDecodeError) as exc:
        why = " ".join(str(exc).split())[:160]
        raise InputError(f"{path} is not a readable Parquet file ({why}); make it again with: corea eval run") from exc
    described = (table.schema.metadata or {}).get(_METADATA_KEY)
    if described is None:
        raise InputError(f"{path} holds no outcomes; make some with: corea eval run, or: corea eval import")
    if unknown := [one for one in names if one not in SCHEMA.names and not one.startswith((CONFIDENCE, SIGNAL_COST))]:
        raise InputError(f'{path} has a column "{unknown[0]}" that outcomes have no place for; make it again')
    outcomes = Outcomes(table=table, metadata=_metadata(described, path))
    outcomes.check(str(path))
    return outcomes


def _metadata(described: bytes, path: Path) -> Mapping[str, Any]:
    damaged = InputError(f"{path} is damaged: it does not say what it holds; make it again with: corea eval run")
    try:
        metadata = json.loads(described)
        version, tiers = metadata["version"], metadata["tiers"]
    except (ValueError, RecursionError, TypeError, KeyError) as exc:
        raise damaged from exc
    if isinstance(version, int) and version > VERSION:
        raise InputError(f"{path} is of version {version}, newer than this corea; upgrade corea")
    if version != VERSION or not isinstance(tiers, list) or not tiers or not all(isinstance(t, str) for t in tiers):
        raise damaged
    return dict(metadata)


def _check_columns(table: pa.Table, source: str) -> None:
    signals = [name for name in table.column_names if name.startswith((CONFIDENCE, SIGNAL_COST))]
    wanted = {one.name: one.type for one in SCHEMA}
    wanted |= {name: pa.float64() if name.startswith(CONFIDENCE) else pa.int64() for name in signals}
    for name, kind in wanted.items():
        if name not in table.column_names:
            raise InputError(f'{source} lacks the column "{name}"; make it again with: corea eval run')
        if table[name].type != kind:
            raise InputError(
                f'{source}: the column "{name}" holds {table[name].type}, not {kind}; '
                "make it again with: corea eval run, or: corea eval import"
            )
        if name in _REQUIRED and table[name].null_count:
            raise InputError(f'{source} has a row without "{name}"; make it again with: corea eval run')


def _check_unique(ids: pa.ChunkedArray, tier: str, source: str) -> None:
    if pc.count_distinct(ids).as_py() == len(ids):
        return
    counted = ids.value_counts()
    repeated = next(row for row in counted if row["counts"].as_py() > 1)
    raise InputError(
        f'{source}: "{repeated["values"]}" has {repeated["counts"]} rows of tier "{tier}"; '
        "leave one of each, or a question would count more than once"
    )
