"""Questions unlike those that were certified: too many of their word pairs were in none of them.

The score of a question is the share of its word pairs that no certifying question has; that of a certifying question,
the share that no *other* one has. p = (1 + number of certifying questions that score at least as high) ÷ (n + 1). If
the question is exchangeable with those certified, P(p ≤ α) ≤ α whatever they are (Vovk, Gammerman and Shafer 2005): a
score can only fall when one question more is among the others, so p is never below the full conformal one.

A file holds hashes of word pairs, not texts; who guesses a text can check the guess. Standard library only.
"""

from __future__ import annotations

import base64
import re
import struct
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from typing import Any

from corea import sealed
from corea.errors import InputError
from corea.guards.base import Judged

VERSION = 1
_FORMAT = "corea.question-domain"
#: Of the questions like those certified, so many are deferred for nothing.
ALPHA = 0.01
_WORD = re.compile(r"[^\W\d_]+|\d+|[^\w\s]")
#: Letters of scripts without spaces are words of their own.
_UNSPACED = re.compile(r"([\u3040-\u30ff\u3400-\u9fff])")
_AGAIN = "fit it again on the certifying questions"


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """``seen``: hashes of the certifying questions' word pairs; ``scores``: those questions' own, rising.

    ``data_hash``: of the outcomes they come from, as in the certificate; ``created_at``: ISO 8601.
    """

    seen: frozenset[int]
    scores: tuple[float, ...]
    data_hash: str
    created_at: str

    def score(self, question: str) -> float:
        """The share of its word pairs that were never seen, 0 to 1; a question without words has seen none."""
        found = pairs(question)
        return len(found - self.seen) / len(found) if found else 1.0

    def p_value(self, question: str) -> float:
        n = len(self.scores)
        return (1 + n - bisect_left(self.scores, self.score(question))) / (n + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unlike:
    """The guard's check. Raises :class:`InputError` where too few questions were certified to tell at ``alpha``."""

    domain: Domain
    alpha: float = ALPHA

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1:
            raise InputError(f"alpha is a share of good questions; set it between 0 and 1, not {self.alpha}")
        if len(self.domain.scores) + 1 < 1 / self.alpha:
            raise InputError(
                f"{len(self.domain.scores)} certifying questions cannot tell a question that is rarer than 1 in "
                f"{round(1 / self.alpha)}; certify more, or raise alpha"
            )

    def __call__(self, judged: Judged) -> str | None:
        p = self.domain.p_value(judged.question)
        if p > self.alpha:
            return None
        share = self.domain.score(judged.question)
        return f"{100 * share:.0f} % of its word pairs are in no certified question (p = {p:.2g})"


def fit(questions: Iterable[str], *, data_hash: str, created_at: str) -> Domain:
    """From the texts of the certifying questions, each counted once. Raises :class:`InputError` for none at all."""
    found = [pairs(question) for question in dict.fromkeys(questions)]
    if not found:
        raise InputError("there are no certifying questions to learn from; check the outcomes' file and its filters")
    counts = Counter(pair for one in found for pair in one)
    scores = sorted(sum(counts[pair] == 1 for pair in one) / len(one) if one else 1.0 for one in found)
    return Domain(seen=frozenset(counts), scores=tuple(scores), data_hash=data_hash, created_at=created_at)


def pairs(text: str) -> frozenset[int]:
    """Hashes of neighbouring words and signs, in lower case, any number being one and the same word."""
    words = ["", *("0" if word[0].isdigit() else word for word in _WORD.findall(_UNSPACED.sub(r" \1 ", text.lower())))]
    return frozenset(_hash(f"{one} {two}") for one, two in pairwise(words))


def checksum(domain: Domain) -> str:
    """Of all that decides what the guard objects to."""
    return sealed.checksum(_body(domain))


def save(domain: Domain, path: Path) -> None:
    """Write it with a checksum, atomically. Raises :class:`InputError` where it cannot be written."""
    sealed.write(path, _body(domain))


def load(path: Path) -> Domain:
    """Read it. Raises :class:`InputError` for a file that is missing, damaged, altered, newer or another thing."""
    return sealed.load(
        path,
        version=VERSION,
        mark={"format": _FORMAT},
        nothing=f"domain of questions; {_AGAIN}",
        make=_AGAIN,
        again=_AGAIN,
        parse=_domain,
    )


def _body(domain: Domain) -> dict[str, Any]:
    packed = struct.pack(f">{len(domain.seen)}I", *sorted(domain.seen))
    return {
        "format": _FORMAT,
        "version": VERSION,
        "data_hash": domain.data_hash,
        "created_at": domain.created_at,
        "scores": list(domain.scores),
        "seen": base64.b64encode(packed).decode("ascii"),
    }


def _domain(data: Mapping[str, Any]) -> Domain:
    packed = base64.b64decode(data["seen"], validate=True)
    scores = tuple(float(score) for score in data["scores"])
    if not scores or list(scores) != sorted(scores) or not 0 <= scores[0] <= scores[-1] <= 1:
        raise ValueError("its scores do not rise from 0 to 1")
    return Domain(
        seen=frozenset(struct.unpack(f">{len(packed) // 4}I", packed)),
        scores=scores,
        data_hash=str(data["data_hash"]),
        created_at=str(data["created_at"]),
    )


def _hash(pair: str) -> int:
    return int.from_bytes(blake2b(pair.encode("utf-8", "surrogatepass"), digest_size=4).digest(), "big")
