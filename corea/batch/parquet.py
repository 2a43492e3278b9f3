"""Parquet in and out, a batch of rows at a time. Knows what columns an output has, not what they mean."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from corea.errors import ExtraMissing, InputError

if TYPE_CHECKING:
    import pyarrow as pa

MAGIC = b"PAR1"

#: Rows held at once.
_ROWS = 1024
#: Rows of one row group of an output.
_GROUP_ROWS = 65_536


def read_rows(file: BinaryIO, *, skip: int = 0) -> Iterator[Mapping[str, Any]]:
    """Rows as plain values, without the first ``skip``, whose row groups are passed over unread.

    Raises :class:`ExtraMissing`, and :class:`InputError` for a damaged file.
    """
    arrow, parquet = _arrow()
    try:
        table = parquet.ParquetFile(file)
        first, skip = _row_group(table, skip)
        for batch in table.iter_batches(batch_size=_ROWS, row_groups=range(first, table.num_row_groups)):
            if skip < batch.num_rows:
                yield from batch.slice(skip).to_pylist()
            skip = max(0, skip - batch.num_rows)
    except arrow.ArrowException as exc:
        raise InputError(f"not a whole Parquet file ({' '.join(str(exc).split())[:200]}); write it anew") from exc


def write_rows(lines: Path, target: Path) -> None:
    """A file of JSON lines, rows of an output, as Parquet. Raises ``OSError``, :class:`ExtraMissing`."""
    arrow, parquet = _arrow()
    schema = _schema(arrow)
    with lines.open("rb") as source, parquet.ParquetWriter(target, schema, compression="zstd") as writer:
        for rows in _grouped(source):
            writer.write_table(arrow.Table.from_pylist(rows, schema=schema))


def _grouped(source: BinaryIO) -> Iterator[list[dict[str, Any]]]:
    rows: list[dict[str, Any]] = []
    for line in source:
        rows.append(json.loads(line))
        if len(rows) == _GROUP_ROWS:
            yield rows
            rows = []
    # An output without rows has its columns all the same.
    yield rows


def _row_group(table: Any, skip: int) -> tuple[int, int]:
    """The row group where row number ``skip`` (from 0) is, and how many rows of it come before."""
    for group in range(table.num_row_groups):
        rows = table.metadata.row_group(group).num_rows
        if skip < rows:
            return group, skip
        skip -= rows
    return table.num_row_groups, 0


def _schema(arrow: Any) -> pa.Schema:
    text, flag, money = arrow.string(), arrow.bool_(), arrow.int64()
    return arrow.schema(
        [
            arrow.field("id", text, nullable=False),
            arrow.field("answer", text),
            arrow.field("text", text),
            arrow.field("tier", text),
            arrow.field("confidence", arrow.float64()),
            arrow.field("deferred", flag),
            arrow.field("cost_nano_usd", money),
            arrow.field("saved_nano_usd", money),
            arrow.field("correct", flag),
            arrow.field("error", text),
            arrow.field("trace_id", text),
        ]
    )


def _arrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError as exc:
        raise ExtraMissing(package="pyarrow", extra="evaluate") from exc
    return pyarrow, pyarrow.parquet
