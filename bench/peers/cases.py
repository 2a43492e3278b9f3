"""The cases that all peers are measured on, their texts, and the splits. Knows no peer and no rule.

Populations are those of :mod:`bench.certify_public`, and what both embedded tiers answered (``bench/outcomes``).
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench import certify_public
from bench.certify_public import Case, Floats
from bench.real_outcomes import GROUPS, OUTCOMES
from corea.evaluate.outcomes import read
from corea.evaluate.pairs import pair_of
from corea.policy.ties import fraction

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
#: Confidence of Llama 3.1 8B in the cases with GPT-4: one of five, named beforehand.
SIGNAL = "p_true"
OWN_SIGNAL = "logprob"
MMLU, GSM8K, GPT4, OWN = "MMLU, six pairs", "GSM8K, six pairs", "to GPT-4, four sets", "COREA's own pair, three sets"
FAMILIES = (MMLU, GSM8K, GPT4, OWN)
_SETS = ("mmlu", "gsm8k-train", "gsm8k-test", "asdiv", "svamp")


@dataclass(frozen=True, slots=True, kw_only=True)
class Replies:
    """The small model's own words, (n,) each, None where they may not be published."""

    texts: Sequence[str | None]
    finishes: Sequence[str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Questions:
    """A case with what was asked, (n,), None where unknown. Public outcomes have no replies."""

    family: str
    case: Case
    texts: Sequence[str | None]
    replies: Replies | None = None

    def __len__(self) -> int:
        return len(self.case.ids)

    @property
    def name(self) -> str:
        return self.case.name


def public(data: Path) -> list[Questions]:
    """Sixteen cases: six pairs on MMLU and on GSM8K, and four with GPT-4, whose prices are nominal (1 : 20)."""
    texts = _texts(data / f"{name}.jsonl.gz" for name in _SETS)
    found = []
    for case in certify_public.cases(data / "outcomes"):
        if case.averaged:
            family = MMLU if case.name.startswith("mmlu") else GSM8K
        elif case.name.endswith((SIGNAL, "agreement")):
            family = GPT4
        else:
            continue
        found.append(Questions(family=family, case=case, texts=[texts.get(one) for one in case.ids]))
    return found


def own(folder: Path = OUTCOMES) -> list[Questions]:
    """Three sets that both embedded tiers answered, with the small tier's replies."""
    return [_own(folder / f"{name}.parquet", name) for name in GROUPS]


def splits(n: int, draws: int, rng: np.random.Generator) -> Bools:
    """Halves by lot, (draws, n): True for the calibration part."""
    calibration = np.zeros((draws, n), dtype=np.bool_)
    for row in calibration:
        row[rng.permutation(n)[: n // 2]] = True
    return calibration


def _own(path: Path, name: str) -> Questions:
    outcomes = read(path)
    pair, _ = pair_of(outcomes, drop_incomplete=True)
    rows = outcomes.table.select(["id", "tier", "text", "finish_reason"]).to_pylist()
    replies = {row["id"]: row for row in rows if row["tier"] == pair.small}
    case = Case(
        name=f"{name}: {pair.small} → {pair.large}",
        averaged=False,
        ids=np.asarray(pair.ids, dtype=object),
        confidence=pair.confidence[OWN_SIGNAL],
        small_correct=pair.small_correct,
        large_correct=pair.large_correct,
        small_cost=pair.small_cost_nano_usd,
        large_cost=pair.large_cost_nano_usd,
        fractions=np.array([fraction(one) for one in pair.ids]),
    )
    return Questions(
        family=OWN,
        case=case,
        texts=list(pair.questions),
        replies=Replies(
            texts=[replies[one]["text"] for one in pair.ids],
            finishes=[replies[one]["finish_reason"] for one in pair.ids],
        ),
    )


def _texts(files: Iterable[Path]) -> dict[str, str]:
    found: dict[str, str] = {}
    for file in files:
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            found.update((row["id"], row["question"]) for row in map(json.loads, lines))
    return found


def unknown_last(score: Floats) -> Floats:
    """Scores for packages that know no NaN: the unknown ones below all others."""
    known = score[~np.isnan(score)]
    return np.where(np.isnan(score), (float(known.min()) if len(known) else 0.0) - 1.0, score)
