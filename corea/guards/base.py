"""What a guard is: a rule with a name that looks at one answer and says why it must not be kept, or nothing.

A guard is pure and quick, a few milliseconds at the most. It corrects nothing: what it objects to is deferred. It is
conservative: better let a wrong answer through, which confidence may stop, than send right ones to the dear model.
Knows no models and no thresholds.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from corea.types import Confidence, Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """An answer about to be kept: ``text`` is the reply without its confidence line, ``answer`` what was found in it.

    ``confidence=None``: nobody asked for one, which is no failure.
    """

    question: str
    text: str
    answer: str | None
    kind: Kind | None = None
    confidence: Confidence | None = None
    finish_reason: str | None = "stop"


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """``check`` gives the reason, in a few words, or None where all is well. It never raises for odd text."""

    name: str
    check: Callable[[Judged], str | None]


#: A fenced block of code, or of what it printed; its language is the first group.
FENCED = re.compile(r"^[ \t]{0,8}```([\w+-]{0,20})[^\n]*\n(.*?)(?:^[ \t]{0,8}```|\Z)", re.MULTILINE | re.DOTALL)


def prose(text: str) -> str:
    """The text without its fenced blocks."""
    return FENCED.sub("\n", text)
