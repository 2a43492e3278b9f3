"""Is this answer the gold answer? Numbers, expressions, choices, booleans and text. Knows no models and no cascade.

What counts as equal is in docs/grading.md, its hard cases in tests/grading/test_hard_cases.py. Programs are run, not
compared: :mod:`corea.grading.programs`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from fractions import Fraction

from corea.errors import InputError
from corea.grading.dress import undress
from corea.grading.quantities import number_of
from corea.types import Kind

__all__ = ["NO_CODE", "boolean_of", "choice_of", "grade", "number_of", "same_answer"]

#: What whoever has programs to grade and no leave to run them is told.
NO_CODE = 'programs are run only with --allow-code; add it, or take the questions of kind "code" out'
#: Plain numbers, which most answers are: compared without further ado.
_PLAIN = re.compile(r"-?\d{1,15}(?:\.\d{1,9})?")
_WITH_COMMAS = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
_ANSWER_IS = re.compile(
    r"^(?:(?:so|thus|therefore|hence),?\s+)?(?:(?:the|my)\s+)?(?:(?:final|correct|best|right)\s+)*"
    r"(?:answer|option|choice)\b\s*(?:is\b|:)?\s*(?:(?:option|choice|answer)\b\s*)?",
    re.IGNORECASE,
)
#: The letter, then nothing, a mark, or words that explain it. "A dog" and "I think" choose nothing.
_CHOICE = re.compile(
    r"^[(\[]?(?P<letter>[A-Za-z])(?:$|[)\]][):.]?(?=$|\W)|[.:](?=$|\s)|,(?=\s)|\s+-\s|\s+(?=is\b|because\b|since\b|as\b)"
    r"|(?<![AIai])\s+(?=\S))"
)
#: A second letter: "B and C", "B, C", "B C", "B) 12 or C) 13"; but not "B) A dog" and "B, I think".
_SECOND_CHOICE = re.compile(
    r"^[\s)\].]*(?:and|or|,|/|&)\s*[(\[]?[A-HJ-Z][)\]]?(?:[.,:\s]|$)|^\s+[A-HJ-Z]\W*$|\b(?:and|or)\s+\(?[A-Z]\)"
)
_NONE_OF_THESE = re.compile(r"^none of (?:the above|these|those|them|the options|the choices|the other options)$")
_RATIO = re.compile(r"^(\d+)\s*(?::|to|/)\s*(\d+)$")
_YES = frozenset({"yes", "true", "correct"})
_NO = frozenset({"no", "false", "incorrect"})
#: What makes the first word's meaning doubtful: "yes and no", "true/false", "no doubt".
_DOUBTFUL = re.compile(r"^\W*\w+\W*(?:(?:and|or)\b|/|doubt\b)", re.IGNORECASE)
#: Longest answer worth reading; a model that rambles for longer has not given one.
_MAX_CHARS = 2000


def grade(answer: str | None, gold: str, kind: Kind, *, allow_code: bool = False, prompt: str = "") -> bool:
    """True when ``answer`` says the same as ``gold``. No answer is a wrong answer. Never raises for odd text.

    Of kind "code", ``answer`` is the whole reply and ``gold`` the tests, which are run: only with ``allow_code``, or
    :class:`InputError` is raised, as it is where programs cannot be shut in. ``prompt`` is the question, whose function
    a reply may just go on with. Expressions and programs may take seconds.
    """
    is_code = kind == "code"
    if is_code and not allow_code:
        raise InputError(NO_CODE)
    if answer is None or not answer.strip() or (len(answer) > _MAX_CHARS and not is_code):
        return False
    match kind:
        case "number" | "expression":
            return _same_quantity(answer, gold, kind)
        case "choice":
            return _same_choice(answer, gold)
        case "boolean":
            return (said := boolean_of(answer)) is not None and said == boolean_of(gold)
        case "text":
            return _same_text(answer, gold)
        case "code":
            from corea.grading.programs import grade_program

            return grade_program(answer, gold, prompt=prompt).passed


def check_allowed(kinds: Iterable[Kind | None], *, allow_code: bool) -> None:
    """What to ask before money is spent: raises :class:`InputError` for programs that may not, or cannot, be run."""
    if "code" not in set(kinds):
        return
    if not allow_code:
        raise InputError(NO_CODE)
    from corea.grading.sandbox import check

    check()


def same_answer(first: str, second: str) -> bool:
    """Do two answers agree? Cheap (no algebra), symmetric and reflexive: what votes are counted by."""
    if _plain_text(first) == _plain_text(second):
        return True
    one, two = number_of(first), number_of(second)
    return one is not None and one == two


def choice_of(text: str) -> str | None:
    """The option's capital letter: "B", "(b)", "B) 12 km", "The answer is B". None if there is none, or several."""
    text = _ANSWER_IS.sub("", undress(text)).strip()
    match = _CHOICE.match(text)
    if match is None or _SECOND_CHOICE.search(text[match.end("letter") :]):
        return None
    return match["letter"].upper()


def boolean_of(text: str) -> bool | None:
    """Yes or no from the first word: "Yes, because …", "False.", "The answer is no". None if it is neither, or both."""
    text = _ANSWER_IS.sub("", undress(text))
    words = re.findall(r"[a-z]+", text.lower())
    if not words or _DOUBTFUL.match(text):
        return None
    return True if words[0] in _YES else (False if words[0] in _NO else None)


def _same_quantity(answer: str, gold: str, kind: Kind) -> bool:
    if _PLAIN.fullmatch(answer) and _PLAIN.fullmatch(gold):
        return Fraction(answer) == Fraction(gold)
    from corea.grading.shapes import same_mathematics

    return same_mathematics(answer, gold, letters=kind == "number")


def _same_choice(answer: str, gold: str) -> bool:
    if (wanted := choice_of(gold)) is not None:
        return choice_of(answer) == wanted
    # The gold answer is an option's text.
    return _same_text(answer, gold)


def _same_text(answer: str, gold: str) -> bool:
    if _plain_text(answer) == _plain_text(gold):
        return True
    if not _WITH_COMMAS.fullmatch(answer.strip()) or not _WITH_COMMAS.fullmatch(gold.strip()):
        return False
    one, two = number_of(answer.strip()), number_of(gold.strip())
    return one is not None and one == two


def _plain_text(text: str) -> str:
    """Letters, digits and signs that matter, in lower case: how free text is compared."""
    text = re.sub(r"[$£€]", "", undress(text)).casefold().strip(" .!\"'")
    text = re.sub(r"(?<=\b[a-z])\.(?=[a-z]\b|\s|$)", "", text)
    text = re.sub(r"(?<=[a-z])-(?=[a-z])", " ", re.sub(r"(?<=[a-z])\.(?=\s)", "", text))
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))|(?<=\d)\s+(?=[ap]m\b)", "", text)
    text = " ".join(re.sub(r"\s*([,;])\s*", r"\1 ", re.sub(r"^(?:the|a|an)\s+", "", text)).split())
    if ratio := _RATIO.match(text):
        return f"{ratio[1]}:{ratio[2]}"
    return "none of these" if _NONE_OF_THESE.match(text) else text
