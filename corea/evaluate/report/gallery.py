"""Answers that would be kept and are wrong, the surest first: what a threshold lets through, to be read one by one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from corea.evaluate.outcomes import Floats, Pair, Strings
from corea.evaluate.report.figures import Gallery, WrongAnswer

#: More than this nobody reads.
SHOWN = 20


def is_wrong(correct: Floats) -> NDArray[np.bool_]:
    """Wrong, or where several samples were averaged, more often wrong than right: (n,)."""
    return np.asarray(correct < 0.5)


def confident_but_wrong(pair: Pair, signal: str | None, kept: NDArray[np.bool_]) -> Gallery:
    """``kept``: (n,). Of equally confident answers, those that the large model gets right come first: they are harm."""
    wrong = kept & is_wrong(pair.small_correct)
    at = np.flatnonzero(wrong)
    confidence = np.full(len(pair), np.nan) if signal is None else pair.confidence[signal]
    surest = at[np.lexsort((-pair.large_correct[at], -confidence[at]))]
    known = surest[~np.isnan(confidence[surest])][:SHOWN]
    return Gallery(
        kept=int(kept.sum()),
        wrong=len(at),
        large_right=int((~is_wrong(pair.large_correct[at])).sum()),
        shown=tuple(_answer(pair, int(i), confidence) for i in known),
        note=None if len(known) or not len(at) else "no confidence is known, so none of them was a confident one",
    )


def _answer(pair: Pair, i: int, confidence: Floats) -> WrongAnswer:
    return WrongAnswer(
        id=str(pair.ids[i]),
        task=_text(pair.tasks, i),
        question=_text(pair.questions, i),
        answer=_text(pair.answers, i),
        gold=_text(pair.golds, i),
        confidence=float(confidence[i]),
        small_correct=float(pair.small_correct[i]),
        large_correct=float(pair.large_correct[i]),
    )


def _text(texts: Strings, i: int) -> str | None:
    return None if not len(texts) or texts[i] is None else str(texts[i])
