r"""Are two pieces of mathematics the same? Takes apart intervals, points, sets, lists, inequalities and equations.

Brackets and order are compared here, because math-verify does not always (it takes (2,3) for {2,3}); the parts are
numbers, compared exactly, or go to algebra. What counts as equal is in docs/grading.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from corea.grading.algebra import equivalent
from corea.grading.dress import undress
from corea.grading.quantities import after_equals, quantity_of, same_quantity, units_of

#: More parts than this is no answer.
_MAX_PARTS = 50
_SIGNS = (
    (re.compile(r"\\(?:leqslant|leq|le)(?![A-Za-z])|<=|≦|⩽"), "≤"),
    (re.compile(r"\\(?:geqslant|geq|ge)(?![A-Za-z])|>=|≧|⩾"), "≥"),
    (re.compile(r"\\lt(?![A-Za-z])|&lt;"), "<"),
    (re.compile(r"\\gt(?![A-Za-z])|&gt;"), ">"),
    (re.compile(r"\\cup(?![A-Za-z])"), "∪"),
    (re.compile(r"(?<=[)\]])\s*U\s*(?=[(\[])"), "∪"),
    (re.compile(r"\\in(?![A-Za-z])"), "∈"),
    (re.compile(r"\\pm(?![A-Za-z])"), "±"),
    (re.compile(r"\\infty(?![A-Za-z])|\binfinity\b|\binf\b", re.IGNORECASE), "∞"),
    (re.compile(r"\+\s*∞"), "∞"),
    (re.compile(r"\\(?:lbrace|\{)"), "⦃"),
    (re.compile(r"\\(?:rbrace|\})"), "⦄"),
    (re.compile(r"\\langle(?![A-Za-z])|⟨"), "("),
    (re.compile(r"\\rangle(?![A-Za-z])|⟩"), ")"),
    (re.compile(r"\\(?:varnothing|emptyset)(?![A-Za-z])|∅"), "⦃⦄"),
    (re.compile(r"\\mathbb\s*\{?\s*R\s*\}?|ℝ"), "(-∞,∞)"),
)
_ROUNDED = re.compile(r"\s*(?:\\approx|\\simeq|≈|≃)(?![A-Za-z]).*$", re.DOTALL)
_WHOLE_LINE = frozenset({"all real numbers", "all reals", "all real x", "the real numbers"})
_EMPTY = frozenset(
    {"no solution", "no solutions", "no real solution", "no real solutions", "empty set", "the empty set"}
)
#: "x ∈ (2, 3)" and "(x, y) = (2, 3)".
_MEMBER = re.compile(r"^\s*(?:[A-Za-z]\s*∈|\(\s*[a-z]\s*(?:,\s*[a-z]\s*)+\)\s*=)\s*")
_VARIABLE = re.compile(r"\s*(?:[A-Za-z]|\\[a-z]+)\s*")
_HAS_VARIABLE = re.compile(r"(?<![\\A-Za-z])[A-Za-df-z]")
_LABEL = re.compile(
    r"^\s*(?P<label>[A-Za-z](?:\([a-z]\))?|\\(?:theta|alpha|beta|phi|lambda))\s*=(?:.*=)?(?P<rest>[^=]+)$"
)
_LABEL_LAST = re.compile(r"^(?P<rest>[^=]+)=\s*(?P<label>[A-Za-z])\s*$")
_INWARDS = re.compile(r"^([\[\]])([^\[\]()]+)([\[\]])$")
_VECTOR = re.compile(r"^\\begin\{[pb]?matrix\}(?P<inside>.*)\\end\{[pb]?matrix\}$", re.DOTALL)
_ENVIRONMENT = re.compile(r"\\(?:begin|end)\{\w+\*?\}")
_BASED = re.compile(r"^(?P<digits>[A-F]*\d[0-9A-F]*)_\{?(?P<base>\d+)\}?$")
_UNITS_AT_END = re.compile(
    r"(?:(?:\s|(?<=[\d})]))(?:square |cubic |sq\.? )?[A-Za-z°]+(?:\s*(?:/|per )\s*[A-Za-z]+)?(?:\^\{?\d\}?)?\.?)$"
)
#: Signs that math-verify may pass over: "< 5", "0.333...".
_NOT_TO_BE_LOST = (re.compile("[<>≤≥≠]"), re.compile(r"\.\.|\\[lc]?dots"))
_FUNCTIONS = frozenset(["sqrt", "sinh", "cosh", "tanh", "arcsin", "arccos", "arctan", "frac", "infty"])
_OPENING, _CLOSING = "([{⦃", ")]}⦄"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ordered:
    """A point, a vector or an interval: brackets matter, and order. ``of`` is an inequality's variable."""

    left: str
    right: str
    parts: tuple[str, ...]
    of: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Union:
    """Two intervals or more."""

    parts: tuple[_Ordered, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Unordered:
    """A set, or a list of answers."""

    parts: tuple[str, ...]


_Shape = _Ordered | _Union | _Unordered | str
_Part = TypeVar("_Part")


def same_mathematics(answer: str, gold: str, *, letters: bool = False) -> bool:
    """True when both say the same. ``letters``: a single letter after a number may be a unit (5m). May take seconds."""
    return _same(_tidy(answer), _tidy(gold), letters)


def _same(answer: str, gold: str, letters: bool) -> bool:
    if _squeezed(answer) == _squeezed(gold):
        return bool(_squeezed(gold))
    (label, answer), (gold_label, gold) = _labelled(answer), _labelled(gold)
    if label or gold_label:
        return (not label or not gold_label or label == gold_label) and _same(answer, gold, letters)
    if (done := _same_numbers(answer, gold, letters)) is not None:
        return done
    one, two = _shape(answer), _shape(gold)
    match one, two:
        case str(), str():
            return _same_scalars(one, two, letters)
        case _Ordered(), _Ordered():
            return _same_ordered(one, two, letters)
        case _Union(), _Union():
            return _matched(one.parts, two.parts, lambda a, b: _same_ordered(a, b, letters))
        case _Unordered(), _Unordered():
            return _same_labels(one, two) and _matched(one.parts, two.parts, lambda a, b: _same(a, b, letters))
        case _Unordered(parts=(single,)), str():
            return _same(single, two, letters)
        case str(), _Unordered(parts=(single,)):
            return _same(one, single, letters)
        case (_Ordered(), _) | (_, _Ordered()):
            return _all_same(_as_point(one), _as_point(two), letters)
    return False


def _same_numbers(answer: str, gold: str, letters: bool) -> bool | None:
    """The verdict where both are numbers; None where either is not."""
    if "=" not in gold:
        answer = after_equals(answer)
    if (two := quantity_of(gold, letters=letters)) is None or (one := quantity_of(answer, letters=letters)) is None:
        return None
    return same_quantity(one, two)


def _same_scalars(answer: str, gold: str, letters: bool) -> bool:
    if "=" not in gold:
        answer = after_equals(answer)
    if (based := _same_based(answer, gold)) is not None:
        return based
    (units, answer), (gold_units, gold) = _without_units(answer), _without_units(gold)
    if units and gold_units and not units & gold_units:
        return False
    if (units or gold_units) and (done := _same_numbers(answer, gold, letters)) is not None:
        return done
    if _squeezed(answer) == _squeezed(gold):
        return True
    if any(bool(sign.search(answer)) != bool(sign.search(gold)) for sign in _NOT_TO_BE_LOST):
        return False
    # A word read as a product of letters is equal to all its anagrams.
    if _has_words(answer) or _has_words(gold):
        return False
    return equivalent(_as_latex(gold), _as_latex(answer))


def _shape(text: str) -> _Shape:
    if text.lower() in _WHOLE_LINE:
        text = "(-∞,∞)"
    if text.lower() in _EMPTY or _squeezed(text) in {"⦃⦄", "⦃⦃⦄⦄"}:
        return _Unordered(parts=())
    if "\\begin" in text:
        return text
    text = _MEMBER.sub("", text)
    if len(pieces := _split(text, ("∪",))) > 1:
        intervals = [_ordered(piece) for piece in pieces]
        return _Union(parts=tuple(part for part in intervals if part)) if all(intervals) else text
    if (inequality := _inequalities(text)) is not None:
        return inequality
    if (ordered := _ordered(text)) is not None:
        return ordered
    if text.startswith("⦃") and text.endswith("⦄") and len(_split(text[1:-1], ("⦄",))) == 1:
        return _Unordered(parts=tuple(_split(text[1:-1], (";",)) if ";" in text else _split(text[1:-1], (",",))))
    parts = _split(text, (";",)) if ";" in text else _split(text, (",", " and ", " or "))
    if 1 < len(parts) <= _MAX_PARTS:
        return _Unordered(parts=tuple(part for piece in parts for part in _both_signs(piece)))
    if len(signs := _both_signs(text)) > 1:
        return _Unordered(parts=signs)
    return text


def _ordered(text: str) -> _Ordered | None:
    """(a, b), [a, b) and the like; ]a, b[ is written so in much of Europe."""
    text = text.strip()
    if inwards := _INWARDS.match(text):
        left, right = "[" if inwards[1] == "[" else "(", "]" if inwards[3] == "]" else ")"
        text = f"{left}{inwards[2]}{right}"
    if text[:1] not in ("(", "[") or text[-1:] not in (")", "]") or not _is_closed_at_end(text):
        return None
    parts = _split(text[1:-1], (";",)) if ";" in text else _split(text[1:-1], (",",))
    if not 1 < len(parts) <= _MAX_PARTS or not all(part.strip() for part in parts):
        return None
    return _interval(text[0], text[-1], parts)


def _interval(left: str, right: str, parts: Sequence[str], of: str | None = None) -> _Ordered:
    # Infinity is never in it, whatever the bracket says.
    left = "(" if "∞" in parts[0] else left
    right = ")" if "∞" in parts[-1] else right
    return _Ordered(left=left, right=right, parts=tuple(part.strip() for part in parts), of=of)


def _inequalities(text: str) -> _Ordered | _Union | None:
    """x < 3, 2 ≤ x < 3, x < 1 or x > 5: as intervals."""
    if not re.search("[<>≤≥]", text):
        return None
    found = [_inequality(piece) for piece in _split(text, (" or ", ",", "∪"))]
    intervals = [interval for interval in found if interval is not None]
    if len(intervals) < len(found) or len({interval.of for interval in intervals}) > 1:
        return None
    return intervals[0] if len(intervals) == 1 else _Union(parts=tuple(intervals))


def _inequality(text: str) -> _Ordered | None:
    pieces = re.split("([<>≤≥])", text)
    bounds, signs = pieces[::2], pieces[1::2]
    if any(sign in ">≥" for sign in signs):
        bounds, signs = bounds[::-1], ["<" if sign == ">" else "≤" if sign == "≥" else sign for sign in signs[::-1]]
        if any(sign in ">≥" for sign in pieces[1::2]) and any(sign in "<≤" for sign in pieces[1::2]):
            return None
    at = [place for place, bound in enumerate(bounds) if _VARIABLE.fullmatch(bound)]
    if len(at) != 1 or len(bounds) > 3 or (len(bounds) == 3 and at != [1]):
        return None
    if any(_HAS_VARIABLE.search(bound) for place, bound in enumerate(bounds) if place != at[0]):
        return None
    of = bounds[at[0]].strip()
    left = "[" if at[0] == 1 and signs[0] == "≤" else "("
    right = "]" if at[0] < len(signs) and signs[at[0]] == "≤" else ")"
    low, high = bounds[0] if at[0] == 1 else "-∞", bounds[-1] if at[0] < len(signs) else "∞"
    return _interval(left, right, [low, high], of=of)


def _same_ordered(one: _Ordered, two: _Ordered, letters: bool) -> bool:
    if (one.left, one.right) != (two.left, two.right) or (one.of and two.of and one.of != two.of):
        return False
    return _all_same(one.parts, two.parts, letters)


def _all_same(one: Sequence[str], two: Sequence[str], letters: bool) -> bool:
    return 0 < len(one) == len(two) and all(_same(a, b, letters) for a, b in zip(one, two, strict=True))


def _matched(one: Sequence[_Part], two: Sequence[_Part], same: Callable[[_Part, _Part], bool]) -> bool:
    """Is there a partner in ``two`` for each of ``one``, and none left over?"""
    left = list(two)
    if len(one) != len(left):
        return False
    for part in one:
        partner = next((at for at, other in enumerate(left) if same(part, other)), None)
        if partner is None:
            return False
        del left[partner]
    return True


def _same_labels(one: _Unordered, two: _Unordered) -> bool:
    """x = 2, y = 3 is not 2, 3 in any order; x = 2 or x = 3 is."""
    labels = [{_labelled(part)[0] for part in shape.parts} for shape in (one, two)]
    return labels[0] == labels[1] or max(map(len, labels)) <= 1


def _as_point(shape: _Shape) -> tuple[str, ...]:
    """Coordinates of (2, 3), of a column or row vector, and of x = 2, y = 3 in the order of their letters."""
    match shape:
        case _Ordered(left="(", right=")", parts=parts, of=None):
            return parts
        case _Unordered(parts=parts):
            named = dict(sorted((label, rest) for label, rest in map(_labelled, parts) if label))
            return tuple(named.values()) if 1 < len(named) == len(parts) else ()
        case str() if vector := _VECTOR.match(shape.strip()):
            rows = [row.split("&") for row in vector["inside"].split("\\\\") if row.strip()]
            return tuple(cell.strip() for row in rows for cell in row) if 1 in (len(rows), *map(len, rows)) else ()
    return ()


def _labelled(text: str) -> tuple[str | None, str]:
    """("x", "5") of x = 5 and of 5 = x; (None, text) of what is no such equation, or several."""
    if text.count("=") == 0 or after_equals(text) == text:
        return None, text
    if found := _LABEL.match(text):
        return found["label"], found["rest"].strip()
    if (found := _LABEL_LAST.match(text)) and not _VARIABLE.fullmatch(found["rest"]):
        return found["label"], found["rest"].strip()
    return None, text


def _same_based(answer: str, gold: str) -> bool | None:
    """1010₂: the answer may leave the base out, the gold answer means ten by that. None where neither has one."""
    one, two = _BASED.match(answer), _BASED.match(gold)
    if one is None and two is None:
        return None
    if one and one["base"] != (two["base"] if two else "10"):
        return False
    return (one["digits"] if one else answer) == (two["digits"] if two else gold)


def _both_signs(text: str) -> tuple[str, ...]:
    return (text.replace("±", "+", 1), text.replace("±", "-", 1)) if text.count("±") == 1 else (text,)


def _without_units(text: str) -> tuple[frozenset[str], str]:
    """Units at the end of an expression, and the expression. A single letter is a variable, unless it was upright."""
    found = _UNITS_AT_END.search(text)
    if found is None or any(len(word) == 1 for word in re.findall("[A-Za-z]+", found[0])):
        return frozenset(), text
    units = units_of(found[0])
    return units, text[: found.start()].strip() if units else text


def _has_words(text: str) -> bool:
    text = _ENVIRONMENT.sub("", text)
    return any(word.lower() not in _FUNCTIONS for word in re.findall(r"(?<![A-Za-z\\])[A-Za-z]{4,}", text))


def _split(text: str, separators: tuple[str, ...]) -> list[str]:
    """The text cut at separators that stand outside all brackets."""
    parts, depth, start, at = [], 0, 0, 0
    while at < len(text):
        depth += (text[at] in _OPENING) - (text[at] in _CLOSING)
        cut = next((sign for sign in separators if depth == 0 and text.startswith(sign, at)), None)
        if cut is None:
            at += 1
            continue
        parts.append(text[start:at])
        start = at = at + len(cut)
    return [part.strip() for part in (*parts, text[start:]) if part.strip() or len(parts) == 0]


def _is_closed_at_end(text: str) -> bool:
    """Does the bracket that opens the text close at its end?"""
    depth = 0
    for at, char in enumerate(text):
        depth += (char in _OPENING) - (char in _CLOSING)
        if depth <= 0:
            return at == len(text) - 1
    return False


def _tidy(text: str) -> str:
    text = undress(text)
    for pattern, sign in _SIGNS:
        text = pattern.sub(sign, text)
    # "2/3 ≈ 0.67" says 2/3, and "≈ 0.67" says 0.67.
    text = _ROUNDED.sub("", text) or text
    return re.sub(r"(?<!\.)\.$", "", " ".join(text.split())).strip()


def _squeezed(text: str) -> str:
    """Without blanks, but for those between digits."""
    return re.sub(r"(?<!\d)\s+|\s+(?!\d)", "", text).casefold()


def _as_latex(text: str) -> str:
    text = re.sub(r"√\s*\(?(\w+)\)?", r"\\sqrt{\1}", text)
    for sign, latex in (
        ("∞", "\\infty "),
        ("π", "\\pi "),
        ("×", "\\times "),
        ("≤", "\\le "),
        ("≥", "\\ge "),
        ("≠", "\\ne "),
        ("±", "\\pm "),
        ("∈", "\\in "),
        ("∪", "\\cup "),
        ("θ", "\\theta "),
        ("⦃", "\\{"),
        ("⦄", "\\}"),
        ("°", ""),
        ("$", ""),
        ("%", "\\%"),
    ):
        text = text.replace(sign, latex)
    return text
