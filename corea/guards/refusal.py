"""A reply that declines to answer, by the phrases models decline with."""

from __future__ import annotations

import re

from corea.guards.base import Judged

#: Where a refusal is looked for: whoever refuses says so at the beginning, or in place of the answer.
_HEAD = 240
_CANNOT = (
    r"(?:can(?:no|')?t|can not|can’t|am (?:not able|unable)|'m (?:not able|unable)|’m (?:not able|unable)|won'?t|won’t|"
    r"will not|must decline|have to decline|do not feel comfortable|don't feel comfortable)"
)
_DECLINES = re.compile(
    rf"\bas an? (?:ai|artificial intelligence|language model)\b[^.!?\n]{{0,80}}\bI,? ?{_CANNOT}"
    rf"|\bI(?:'m|’m| am)? ?(?:sorry|apologi[sz]e)\b[^.!?\n]{{0,40}}\b(?:but )?I ?{_CANNOT}"
    rf"|\bI ?{_CANNOT} (?:to )?(?:assist|help|comply|fulfil\w*|provide (?:that|this|an answer|the answer|assistance)|"
    r"answer (?:that|this|your|the)|engage|discuss|continue with|create|generate|process)"
    r"|\b(?:it (?:is|would be) )?against my (?:programming|guidelines)\b|\bviolates? (?:my|our|the) (?:content )?polic"
    r"|(?:很抱歉|对不起|抱歉)[^。\n]{0,20}(?:不能|无法)|作为(?:一个)?(?:AI|人工智能)[^。\n]{0,20}(?:不能|无法)"
    r"|申し訳(?:ありません|ございません)[^。\n]{0,30}(?:できません|できかね)"
    r"|\blo siento\b[^.\n]{0,30}\bno puedo\b|\bje suis désolée?\b[^.\n]{0,40}\bje ne peux pas\b"
    r"|\bes tut mir leid\b[^.\n]{0,40}\b(?:ich kann|kann ich)\b[^.\n]{0,40}\bnicht\b"
    r"|извините[^.\n]{0,30}не могу",
    re.IGNORECASE,
)
_AS_ANSWER = re.compile(
    r"\b(?:i (?:do not|don't|don’t) know|(?:unable|impossible) to (?:answer|determine|say)|not enough information|"
    r"insufficient information|cannot (?:be )?(?:answer|determin)\w*|n/?a|unknown)\b",
    re.IGNORECASE,
)


def refusal(judged: Judged) -> str | None:
    """It says that it cannot or will not answer, at its beginning or as its answer."""
    if (found := _DECLINES.search(judged.text[:_HEAD])) is not None:
        return f"it declines: {' '.join(found[0].split())[:80]!r}"
    answer = judged.answer or ""
    # An option may well read "cannot be determined": then it is an answer.
    if judged.kind != "choice" and len(answer) <= 80 and (found := _AS_ANSWER.search(answer)) is not None:
        return f"it answers {found[0]!r}"
    return None
