"""An answer that is not what the reasoning before it came to. Knows nothing of whether either is right."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor

from corea.grading.answers import boolean_of, choice_of
from corea.grading.quantities import number_of
from corea.guards.base import FENCED, Judged

#: Results that the answer is looked for among; a check or an aside may follow the one that counts.
_LAST_RESULTS = 3
#: What stands between the sign and the number: money, text, boxes.
_DRESS = r"(?:\\?\$|\\\(|\\\[|\\text\{[^{}]{0,40}\}|\\boxed\{|[*£€ \t]){0,6}"
_NUMBER = r"[-−]?\d[\d,]{0,24}(?:\.\d{1,24})?"
#: "= 12", but neither the 12 of "= 12 + 3" nor that of "= 12/5".
_RESULT = re.compile(
    rf"(?:=|≈|≤|≥|\\approx|\\leq?|\\geq?)[ \t]{{0,4}}{_DRESS}"
    rf"(?:\\[dt]?frac\{{(?P<top>{_NUMBER})\}}\{{(?P<bottom>{_NUMBER})\}}|(?P<number>{_NUMBER}))"
    r"(?![\d.,]{0,24}\d)(?!\\?%?[ \t]{0,4}(?:\\text\{[^{}]{0,40}\}[ \t]{0,4})?"
    r"(?:[-+*/×÷^(−]|\\times|\\div|\\cdot|\\frac|\\left))"
)
#: Degrees are no powers, and a thousand may be written 1{,}000.
_DEGREES = re.compile(r"\^\s?\{?\s?\\circ\s?\}?|\{,\}")
_TOKEN = re.compile(_NUMBER)
_PRINTED = re.compile(rf"^\s*\$?({_NUMBER})\s*$", re.MULTILINE)
#: What may stand beside the numbers of a sum that is worked out; any other letter is algebra.
_UNITS = re.compile(r"\\(?:text|mathrm|textbf)\{[^{}]{0,40}\}|\\(?:left|right|quad|[,!()\[\]%$])|&")
_SIGNS = re.compile(r"\\(?:times|div|cdot|[dt]?frac)")
_BEFORE = re.compile(r"=|≈|\n|\\\\|\\approx|[.,;:](?=\s)")
_LEFT_SIDE = 120
_SENTENCE = re.compile(r"[.!?](?:\s|$)")
_STATED = re.compile(
    r"\b(?:the|my)[ \t](?:final |correct |right |best )?(?:answer|option|choice)[ \t](?:is|must be|would be)\b:?"
    r"(?=[ \t]{0,4}(?P<said>[^\n]{1,80}))",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What an equation or a program came to, and where. ``worked_out``: from numbers alone, as in 3 + 4 = 7."""

    at: int
    value: Fraction
    worked_out: bool


def contradiction(judged: Judged) -> str | None:
    """Numbers: the last thing worked out is not the answer, and nothing but the answer comes after it. Choices and
    booleans: another answer was stated before."""
    if judged.answer is None:
        return None
    if judged.kind == "number":
        return _not_a_result(judged.text, judged.answer)
    if judged.kind in ("choice", "boolean"):
        return _stated_otherwise(judged)
    return None


def results(text: str) -> list[Result]:
    """Of its equations, and of its programs where their output is shown, in order."""
    blocks = [(match.span(), match[1].lower(), match[2]) for match in FENCED.finditer(text)]
    found = [
        Result(at=start, value=value, worked_out=True)
        for (start, _), language, body in blocks
        if language in ("", "output", "text", "plaintext")
        for one in _PRINTED.findall(body)
        if (value := _value(one)) is not None
    ]
    for match in _RESULT.finditer(text):
        # An assignment of a program is no result.
        in_block = any(start <= match.start() < end for (start, end), _, _ in blocks)
        value = _value(match["number"]) if match["number"] else _ratio(match["top"], match["bottom"])
        if value is not None and not in_block:
            left = text[max(0, match.start() - _LEFT_SIDE) : match.start()]
            found.append(Result(at=match.start(), value=value, worked_out=_is_sum(left)))
    return sorted(found, key=lambda result: result.at)


def _not_a_result(text: str, answer: str) -> str | None:
    stated = number_of(answer)
    text = _DEGREES.sub(lambda match: "" if "," in match[0] else " ", text)
    found = results(text)
    if stated is None or not found or any(_comes_to(one.value, stated) for one in found[-_LAST_RESULTS:]):
        return None
    last = found[-1]
    after = {_value(one) for one in _TOKEN.findall(text[last.at :])} - {None, last.value, stated}
    # With other numbers after it, the answer may have been read off, chosen or worked out in words.
    if after or not last.worked_out:
        return None
    return f"it answers {_short(stated)}, and its last result is {_short(last.value)}"


def _is_sum(left: str) -> bool:
    """Whether the left side of an equation is two numbers or more with signs between them, and no letters."""
    plain = _SIGNS.sub(" * ", _UNITS.sub(" ", _BEFORE.split(left)[-1]))
    several = len(re.findall(r"\d[\d,.]*", plain)) >= 2
    return several and re.search(r"[-+*/×÷−^]", plain) is not None and re.search(r"[^\W\d]|\\", plain) is None


def _comes_to(result: Fraction, answer: Fraction) -> bool:
    """Equal, rounded in any way, or as a percentage."""
    if result == answer or answer in (floor(result), ceil(result)) or answer in (100 * result, result / 100):
        return True
    return abs(result - answer) <= Fraction(1, 100) * abs(result)


def _stated_otherwise(judged: Judged) -> str | None:
    read = choice_of if judged.kind == "choice" else boolean_of
    final = read(judged.answer or "")
    said = [
        found
        for match in _STATED.finditer(judged.text)
        if (found := read(_SENTENCE.split(match["said"])[0])) is not None
    ]
    if final is None or not said or final == said[-1]:
        return None
    return f"it states {_word(said[-1])} before it answers {_word(final)}"


def _value(written: str) -> Fraction | None:
    try:
        return Fraction(written.replace(",", "").replace("−", "-"))
    except ValueError:
        return None


def _ratio(top: str, bottom: str) -> Fraction | None:
    above, below = _value(top), _value(bottom)
    return None if above is None or not below else above / below


def _word(said: str | bool) -> str:
    return said if isinstance(said, str) else "yes" if said else "no"


def _short(number: Fraction) -> str:
    return str(number) if number.denominator == 1 else f"{float(number):.6g}"
