"""Is this answer the gold answer? Numbers, expressions, choices, booleans and text. Knows no models and no cascade.

Plain cases are compared exactly here; what needs algebra goes to math-verify (:mod:`corea.grading.algebra`).
"""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction

from corea.types import Kind

_NUMBER = re.compile(r"[-+−]?(?:\d[\d,]*(?:\.\d+)?|\.\d+)")
_MIXED = re.compile(r"(?P<whole>-?\d+)\s+(?P<top>\d+)/(?P<bottom>\d+)")
_QUOTIENT = re.compile(r"(?P<top>-?\d+(?:\.\d+)?)\s*/\s*(?P<bottom>\d+(?:\.\d+)?)")
_LATEX_QUOTIENT = re.compile(r"(?P<sign>-?)\\[dt]?frac\{(?P<top>-?\d+)\}\{(?P<bottom>\d+)\}")
_THOUSANDS = re.compile(r"(?<=\d)(?:,|\\,|\{,\}|\\!|\u202f|\u00a0)(?=\d{3}(?!\d))")
_WORDS_AROUND_CHOICE = re.compile(r"^(?:option|choice|answer)\s+", re.IGNORECASE)
_CHOICE = re.compile(r"^\(?([A-Za-z])(?:[).:\s]|$)")
_YES = frozenset({"yes", "true", "correct"})
_NO = frozenset({"no", "false", "incorrect"})
#: Longest answer worth reading; a model that rambles for longer has not given one.
_MAX_CHARS = 2000


def grade(answer: str | None, gold: str, kind: Kind) -> bool:
    """True when ``answer`` says the same as ``gold``. No answer is a wrong answer. Never raises for odd text."""
    if answer is None or not answer.strip() or len(answer) > _MAX_CHARS:
        return False
    match kind:
        case "number" | "expression":
            return _same_quantity(answer, gold)
        case "choice":
            return (chosen := choice_of(answer)) is not None and chosen == choice_of(gold)
        case "boolean":
            return (said := boolean_of(answer)) is not None and said == boolean_of(gold)
        case "text":
            return _plain_text(answer) == _plain_text(gold)


def same_answer(first: str, second: str) -> bool:
    """Do two answers agree? Cheap (no algebra), symmetric and reflexive: what votes are counted by."""
    if _plain_text(first) == _plain_text(second):
        return True
    one, two = number_of(first), number_of(second)
    return one is not None and one == two


def number_of(text: str) -> Fraction | None:
    """The one number a text holds, exactly: "$1,450.00", "18 dollars", "3/4", "50%" (50). None for none or several."""
    text = _without_dress(text)
    for pattern, sign in ((_MIXED, 1), (_LATEX_QUOTIENT, 1), (_QUOTIENT, 1)):
        found = list(pattern.finditer(text))
        if len(found) == 1 and not _NUMBER.search(text.replace(found[0][0], "")):
            return _quotient(found[0]) if sign else None
    numbers = _NUMBER.findall(text)
    if len(numbers) != 1:
        return None
    return Fraction(numbers[0].replace(",", "").replace("−", "-"))


def choice_of(text: str) -> str | None:
    """The option's capital letter: "B", "(b)", "B) 12 km", "option B". None if there is none."""
    match = _CHOICE.match(_WORDS_AROUND_CHOICE.sub("", _without_dress(text)).strip())
    return match[1].upper() if match else None


def boolean_of(text: str) -> bool | None:
    """Yes or no from the first word: "Yes, because …", "False." None if it is neither."""
    words = re.findall(r"[a-z]+", text.lower())
    if not words:
        return None
    return True if words[0] in _YES else (False if words[0] in _NO else None)


def _same_quantity(answer: str, gold: str) -> bool:
    one, two = number_of(_after_equals(answer)), number_of(gold)
    if one is not None and two is not None:
        # "50%" answers both 50 and 0.5: the sets write percentages either way.
        return one == two or ("%" in answer and one == 100 * two)
    if _plain_text(answer) == _plain_text(gold):
        return True
    from corea.grading.algebra import equivalent

    return equivalent(gold, answer)


def _quotient(match: re.Match[str]) -> Fraction | None:
    parts = match.groupdict()
    bottom = Fraction(parts["bottom"])
    if bottom == 0:
        return None
    value = Fraction(parts["top"]) / bottom
    if "whole" in parts:
        whole = Fraction(parts["whole"])
        return whole - value if parts["whole"].startswith("-") else whole + value
    return -value if parts.get("sign") == "-" else value


def _after_equals(text: str) -> str:
    """What stands after the last equals sign: "5 + 3 = 8" says 8."""
    return text.rsplit("=", 1)[-1] if text.count("=") and text.rsplit("=", 1)[-1].strip() else text


def _without_dress(text: str) -> str:
    text = unicodedata.normalize("NFKC", text).replace("−", "-").replace("\\$", "").replace("\\%", "%")
    text = re.sub(r"\\(?:text|mathrm|mbox)\{([^{}]*)\}", r" \1 ", text)
    return re.sub(r"[$*`£€]|\\[()\[\]]|\\left|\\right", "", _THOUSANDS.sub("", text)).strip()


def _plain_text(text: str) -> str:
    """Letters, digits and signs that matter, in lower case: how free text is compared."""
    text = _without_dress(text).casefold().strip(" .!\"'")
    return " ".join(re.sub(r"^(?:the|a|an)\s+", "", text).split())
