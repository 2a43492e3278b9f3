"""Real outcomes of both embedded tiers on public question sets: what ``bench/outcomes`` holds.

``python -m bench.real_outcomes DATA WORK``: DATA is a folder of question sets (``gsm8k-test.jsonl.gz``, …), WORK keeps
the journals, and the same command goes on where it stopped, or where ``bench/outcomes`` did. About three hours on two
cores. Not part of ``make bench``.

Of each set a fixed part is taken: GSM8K's first 300 test questions, and of the others the 100 whose SHA-256 of the id
is lowest. Texts are left out where their rights are disputed; the figures stay.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from corea.evaluate.outcomes import Outcomes, read, save

OUTCOMES = Path(__file__).parent / "outcomes"

#: Contest problems, published under a licence that their authors never gave.
WITHOUT_TEXTS = ("math",)
_TEXTS = ("question", "gold", "answer", "text")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Questions of one split of one file."""

    file: str
    split: str
    count: int = 100
    first: bool = False

    def lines(self, data: Path) -> list[str]:
        with gzip.open(data / self.file, "rt", encoding="utf-8") as file:
            rows = [row for row in map(json.loads, file) if row["split"] == self.split]
        if not self.first:
            rows.sort(key=lambda row: hashlib.sha256(row["id"].encode()).digest())
        return [json.dumps(row, ensure_ascii=False) + "\n" for row in rows[: self.count]]


GROUPS: Mapping[str, tuple[Part, ...]] = {
    "gsm8k": (Part(file="gsm8k-test.jsonl.gz", split="test", count=300, first=True),),
    "maths": (
        Part(file="svamp.jsonl.gz", split="test"),
        Part(file="aqua.jsonl.gz", split="test"),
        Part(file="math-test-part.jsonl.gz", split="test"),
    ),
    "nonmaths": (
        Part(file="arc-challenge.jsonl.gz", split="test"),
        Part(file="openbookqa.jsonl.gz", split="test"),
        Part(file="strategyqa.jsonl.gz", split="dev"),
    ),
}

TITLES = {"gsm8k": "GSM8K", "maths": "SVAMP, AQuA, MATH", "nonmaths": "ARC-C, OpenBookQA, StrategyQA"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    OUTCOMES.mkdir(exist_ok=True)
    for name, parts in GROUPS.items():
        made = arguments.work / f"{name}.parquet"
        if not made.exists() and (committed := OUTCOMES / made.name).exists():
            shutil.copyfile(committed, made)
        asked(parts, arguments.data, made)
        save(without_texts(read(made)), OUTCOMES / made.name)
        print(f"{name}: {(OUTCOMES / made.name).stat().st_size / 1e6:.2f} MB")


def asked(parts: Sequence[Part], data: Path, made: Path, *more: str) -> None:
    """``corea eval run`` on these questions, which it goes on with where it stopped."""
    questions = made.with_suffix(".jsonl")
    questions.write_text("".join(line for part in parts for line in part.lines(data)), encoding="utf-8")
    command = ["eval", "run", "--data", str(questions), "--out", str(made), *more]
    subprocess.run([sys.executable, "-m", "corea", *command], check=True)


def without_texts(outcomes: Outcomes) -> Outcomes:
    """The same figures, the texts of some tasks left out."""
    table = outcomes.table
    disputed = [task in WITHOUT_TEXTS for task in table["task"].to_pylist()]
    for name in _TEXTS:
        kept: list[Any] = [None if out else value for out, value in zip(disputed, table[name].to_pylist(), strict=True)]
        table = table.set_column(table.column_names.index(name), table.schema.field(name), pa.array(kept, pa.string()))
    return Outcomes(table=table, metadata=outcomes.metadata)


if __name__ == "__main__":
    main()
