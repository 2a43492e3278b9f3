"""A reply that goes round in circles: the same words again and again, one after the other."""

from __future__ import annotations

import re
from itertools import islice
from operator import eq

from corea.guards.base import Judged

#: Words and signs; a script without spaces goes letter by letter.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|\w+|[^\w\s]")
#: Not a variable, as in a sum of fractions.
_SPEECH = re.compile(r"[^\W\d_]{3}|[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_LATEX = re.compile(r"\\[a-zA-Z]+")
#: A loop is so many words at the most, comes so many times at the least, and fills so many words.
_LONGEST, _TIMES, _FILLS = 80, 4, 40
#: Sums such as 5 + 5 + 5 are no loop unless they fill very many.
_FILLS_WITHOUT_SPEECH = 200
#: Words of a reply that are looked at, the last ones: a loop that ended long ago did no harm.
_SEEN = 4_000


def repetition(judged: Judged) -> str | None:
    """Some words come four times or more, one directly after the other, over forty words or more."""
    words = _WORD.findall(_LATEX.sub(" ", judged.text))[-_SEEN:]
    if len(words) < _FILLS or not _repeats(words):
        return None
    for period in range(1, min(_LONGEST, len(words) // _TIMES) + 1):
        # Quick, and sees far more than a run: most periods end here.
        if sum(map(eq, words, islice(words, period, None))) + period < max(_TIMES * period, _FILLS):
            continue
        length, end = _longest_run(words, period)
        filled = length + period
        loop = words[end - period : end]
        least = _FILLS if any(map(_SPEECH.search, loop)) else _FILLS_WITHOUT_SPEECH
        if filled >= max(_TIMES * period, least):
            return f"it repeats {' '.join(loop)[:60]!r} {filled // period} times"
    return None


def _repeats(words: list[str]) -> bool:
    """Whether enough runs of five words come more than once; a loop of forty words has at least twenty of them."""
    fives = list(zip(*(islice(words, start, None) for start in range(5)), strict=False))
    return len(fives) - len(set(fives)) >= _FILLS // 2


def _longest_run(words: list[str], period: int) -> tuple[int, int]:
    """How many words in a row equal those one period before, and where the longest such run ends."""
    best = length = end = 0
    for at in range(period, len(words)):
        length = length + 1 if words[at] == words[at - period] else 0
        if length > best:
            best, end = length, at + 1
    return best, end
