"""Replies that did not come to their end: cut off, without an answer, or without a confidence.

A cascade that asks :func:`corea.policy.thresholds.decide` defers two of these already, those with the finish reason
"length" and those of unknown confidence; they are here so that every rule has a name, a counter and a place to be seen.
"""

from __future__ import annotations

import re

from corea.grading.answers import boolean_of, choice_of
from corea.grading.quantities import number_of
from corea.guards.base import Judged

#: What servers call a reply that ends for another reason than its own.
_ENDS = {"length": "it ran into the token limit", "content_filter": "the provider's filter stopped it"}
_DIGIT = re.compile(r"\d")
#: "A) 12 km" at the beginning of a line of the question.
_OPTION = re.compile(r"^[ \t]{0,8}\(?([A-J])[).:][ \t]{1,4}(?P<text>[^\n]{1,500})$", re.MULTILINE)


def cut_off(judged: Judged) -> str | None:
    """By what the server says, or by what stands there: a box or a block that was opened and never closed."""
    if judged.finish_reason in _ENDS:
        return _ENDS[judged.finish_reason]
    end = judged.text.rstrip()
    if (opened := end.rfind("\\boxed{")) >= 0 and end.count("}", opened) == 0:
        return "its last box is not closed"
    if end.count("```") % 2 and judged.kind != "code":
        return "its last block of code is not closed"
    return None


def no_answer(judged: Judged) -> str | None:
    """Nothing in the reply that can be read as an answer of the kind asked for."""
    if not judged.text.strip():
        return "the reply is empty"
    if judged.kind is None or judged.kind == "code":
        return None
    if judged.answer is None or not judged.answer.strip():
        return f"no {judged.kind} was found in it"
    return None if _reads(judged.answer, judged) else f"its answer is no {judged.kind}"


def confidence_missing(judged: Judged) -> str | None:
    """The model was asked how sure it is, and nothing readable came."""
    if judged.confidence is None or judged.confidence.value is not None:
        return None
    return judged.confidence.note or "its confidence is unknown"


def options_of(question: str) -> dict[str, str]:
    """The options that a question offers, by letter."""
    return {match[1]: match["text"].strip() for match in _OPTION.finditer(question)}


def _reads(answer: str, judged: Judged) -> bool:
    match judged.kind:
        case "number":
            # "4w + 200" and "x" are no numbers, "12 apples" and "3/4 of it" may be.
            return number_of(answer) is not None or _DIGIT.search(answer) is not None
        case "choice":
            return choice_of(answer) is not None or _is_an_option(answer, judged.question)
        case "boolean":
            return boolean_of(answer) is not None
        case _:
            return True


def _is_an_option(answer: str, question: str) -> bool:
    options = options_of(question)
    said = answer.casefold().strip(" .")
    # Without options to compare with, a text is as good as a letter.
    return not options or any(said == option.casefold().strip(" .") for option in options.values())
