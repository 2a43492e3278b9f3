"""A training reply, read by the letter; :mod:`corea.confidence.protocol` reads what anyone may write.

Training rewards the form itself: "90%", "**Confidence:** 9" or a line too early count as not stated. Knows no tokens.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from corea.confidence.protocol import DIGIT_VALUES, parse
from corea.grading.answers import grade

_LAST_LINE = re.compile(r"(?:\A|\n)(?P<line>Confidence:[ \t]{0,4}(?P<digit>[0-9]))\s*\Z")
_ANSWER_LINE = re.compile(r"(?:\A|\n)Answer:[ \t]*\S[^\n]*\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stated:
    """What a reply states. ``line_at``, ``digit_at``: offsets in characters, None where no digit is stated.

    ``well_formed`` is true of a reply that ends with both lines of the protocol.
    """

    digit: int | None = None
    line_at: int | None = None
    digit_at: int | None = None
    well_formed: bool = False

    @property
    def confidence(self) -> float:
        """The probability stated; NaN is unknown."""
        return float("nan") if self.digit is None else DIGIT_VALUES[self.digit]


def read(text: str) -> Stated:
    """Never raises; linear in the text."""
    # The last two lines are short; a regex over a long reply of blanks would not be.
    match = _LAST_LINE.search(text, max(0, len(text.rstrip()) - 32))
    if match is None:
        return Stated()
    return Stated(
        digit=int(match["digit"]),
        line_at=match.start("line"),
        digit_at=match.start("digit"),
        well_formed=_ANSWER_LINE.search(text[: match.start()]) is not None,
    )


def is_right(text: str, gold: str, kind: Any) -> bool:
    """Whether a reply's answer is the gold one, read as in evaluation."""
    parsed = parse(text, kind)
    return grade(parsed.answer or parsed.visible, gold, kind or "text")


def protocol_form(reasoning: str, answer: str, digit: int) -> str:
    """The reply that says this by the letter. The answer is put on one line."""
    return f"{reasoning.rstrip()}\nAnswer: {' '.join(answer.split())}\nConfidence: {digit}"
