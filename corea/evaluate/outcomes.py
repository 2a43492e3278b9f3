"""Outcomes: graded attempts of every tier at every question, as a Parquet file and as arrays.

One row a question and tier. The columns of version 1 are :data:`SCHEMA`, then one ``confidence.<signal>`` for each
signal, a probability or null where it is unknown. The file's metadata (key ``corea.outcomes``) is a JSON object with
``version``, ``tiers`` (names, cheapest first), and hashes of models, prompts and data by tier.

Knows no models and computes no metric.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from corea.errors import InputError

VERSION = 1
PREFIX = "confidence."
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

Floats = NDArray[np.float64]
Strings = NDArray[np.object_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two tiers on the same n questions, aligned: what every metric and certificate is computed from.

    ``small_correct``, ``large_correct``: shape (n,), 0 to 1. ``small_cost_nano_usd``, ``large_cost_nano_usd``: shape
    (n,), NaN where unknown. ``confidence``: each signal of the small tier, shape (n,), a probability or NaN (unknown).
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
    domains: Strings = field(default_factory=lambda: np.array([], dtype=object))
    questions: Strings = field(default_factory=lambda: np.array([], dtype=object))
    answers: Strings = field(default_factory=lambda: np.array([], dtype=object))
    golds: Strings = field(default_factory=lambda: np.array([], dtype=object))

    def __len__(self) -> int:
        return len(self.ids)

    def where(self, mask: NDArray[np.bool_]) -> Pair:
        """The same two tiers on some of the questions. ``mask``: shape (n,)."""
        taken = {name: value[mask] if len(value := getattr(self, name)) else value for name in _ARRAYS}
        signals = {name: values[mask] for name, values in self.confidence.items()}
        return Pair(small=self.small, large=self.large, confidence=signals, **taken)


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
        return tuple(name.removeprefix(PREFIX) for name in self.table.column_names if name.startswith(PREFIX))


def write(
    path: Path, rows: Sequence[Mapping[str, Any]], *, metadata: Mapping[str, Any], signals: Sequence[str]
) -> None:
    """Write outcomes, atomically. Rows have the keys of :data:`SCHEMA` and ``confidence.<signal>``; absent is null."""
    fields = [*SCHEMA, *(pa.field(PREFIX + signal, pa.float64()) for signal in signals)]
    described = json.dumps({**metadata, "version": VERSION}, sort_keys=True).encode()
    schema = pa.schema(fields, metadata={_METADATA_KEY: described})
    partial = path.with_name(path.name + ".partial")
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), partial, compression="zstd")
    partial.replace(path)


def read(path: Path) -> Outcomes:
    """Read outcomes. Raises :class:`InputError` for a file that is damaged, of another kind or of a newer version."""
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as exc:
        why = " ".join(str(exc).split())[:160]
        raise InputError(f"{path} is not a readable Parquet file ({why}); make it again with: corea eval run") from exc
    described = (table.schema.metadata or {}).get(_METADATA_KEY)
    if described is None:
        raise InputError(f"{path} holds no outcomes; make some with: corea eval run, or: corea eval import")
    metadata = json.loads(described)
    if metadata["version"] > VERSION:
        raise InputError(f"{path} is of version {metadata['version']}, newer than this corea; upgrade corea")
    return Outcomes(table=table, metadata=metadata)
