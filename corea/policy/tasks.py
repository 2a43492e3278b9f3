"""Which task a question is of, from its words: for requests whose key and header do not say.

Logistic regression over the tasks, on the gate's hashed words and word pairs. Fitted by ``corea.evaluate.tasks``, which
needs scikit-learn; reading and asking need the standard library only. Unsure, it names no task. Knows no policies, and
nothing that keeps a client from writing like another task: what a recognised task is given, every client is given.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corea import sealed
from corea.policy.gate import PLACES, packed, see, unpacked

VERSION = 1
_FORMAT = "corea.tasks"
_AGAIN = "make it again with: corea eval tasks"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tasks:
    """``words``: a weight for each task and each place; ``least``: what the likeliest task's probability must reach."""

    names: tuple[str, ...]
    intercepts: tuple[float, ...]
    words: tuple[tuple[float, ...], ...]
    least: float
    n: int
    created_at: str

    def __post_init__(self) -> None:
        if len(self.names) < 2 or not len(self.names) == len(self.intercepts) == len(self.words):
            raise ValueError("there are too few tasks or too few weights")
        if any(len(weights) != PLACES for weights in self.words):
            raise ValueError("a task has too few or too many weights")
        if not all(math.isfinite(one + math.fsum(w)) for one, w in zip(self.intercepts, self.words, strict=True)):
            raise ValueError("a weight is not finite")
        if not 0 <= self.least <= 1:
            raise ValueError(f"a probability lies within 0 to 1, not at {self.least!r}")

    def of(self, question: str) -> str | None:
        """The task's name; None where no task is likely enough."""
        name, probability = self.likeliest(question)
        return name if probability >= self.least else None

    def likeliest(self, question: str) -> tuple[str, float]:
        places = see(question).places
        scores = [
            one + math.fsum(weights[place] * weight for place, weight in places.items())
            for one, weights in zip(self.intercepts, self.words, strict=True)
        ]
        top = max(scores)
        return self.names[scores.index(top)], 1 / math.fsum(math.exp(score - top) for score in scores)


def save(tasks: Tasks, path: Path) -> None:
    """Write it with a checksum, atomically. Raises :class:`InputError` where it cannot be written."""
    sealed.write(path, _body(tasks))


def load(path: Path) -> Tasks:
    """Read it. Raises :class:`InputError` for a file that is missing, damaged, altered, newer or another thing."""
    return sealed.load(
        path,
        version=VERSION,
        mark={"format": _FORMAT},
        nothing="tasks to recognise; make them with: corea eval tasks",
        make="make it with: corea eval tasks",
        again=_AGAIN,
        parse=_tasks,
    )


def _body(tasks: Tasks) -> dict[str, Any]:
    return {
        "format": _FORMAT,
        "version": VERSION,
        "names": list(tasks.names),
        "intercepts": list(tasks.intercepts),
        "words": [packed(weights) for weights in tasks.words],
        "least": tasks.least,
        "n": tasks.n,
        "created_at": tasks.created_at,
    }


def _tasks(data: Mapping[str, Any]) -> Tasks:
    return Tasks(
        names=tuple(str(name) for name in data["names"]),
        intercepts=tuple(float(one) for one in data["intercepts"]),
        words=tuple(unpacked(weights) for weights in data["words"]),
        least=float(data["least"]),
        n=int(data["n"]),
        created_at=str(data["created_at"]),
    )
