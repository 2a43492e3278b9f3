r"""What answers are dressed in: LaTeX, Markdown, typography. Taken off before they are compared; knows no kinds."""

from __future__ import annotations

import re
import unicodedata

_WRAPPERS = re.compile(
    r"\\(?:boxed|fbox|text(?:bf|it|rm|sf|tt|normal)?|math(?:rm|bf|it|sf|tt|normal)|mbox|operatorname\*?)\s*"
    r"\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}"
)
#: One letter set upright is a unit, not a variable.
_UPRIGHT = re.compile(r"\\(?:text|mathrm|textrm|mbox)\s*\{[^{}]*\}")
_LONE_UNIT = re.compile(r"(?<![A-Za-z\\])[msghlL](?![A-Za-z])")
_UNIT_NAMES = {"m": "meters", "s": "seconds", "g": "grams", "h": "hours", "l": "liters", "L": "liters"}
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_SUPERSCRIPT = re.compile(r"[⁰¹²³⁴-⁹⁻]+")
_VULGAR_AFTER_DIGIT = re.compile(r"(?<=\d)(?=[¼-¾⅐-⅞])")
_TYPOGRAPHY = str.maketrans(
    {"−": "-", "–": "-", "—": "-", "⁄": "/", "÷": "/", "’": "'", "‘": "'", "“": '"', "”": '"', "º": "°", "∕": "/"}
)
_SIZES = re.compile(r"\\(?:left|right|bigg?[lr]?|Bigg?[lr]?|displaystyle|limits)(?![A-Za-z])")
_SPACES = re.compile(r"(?<!\\)\\[,;: ]|~|\\q?quad(?![A-Za-z])")
_FRACTION = re.compile(r"\\[dtc]frac(?![A-Za-z])")
_SHORT_FRACTION = re.compile(r"\\frac\s*(?:\{([^{}]*)\}|(\d))\s*(?:\{([^{}]*)\}|(\d))")
_DEGREES = re.compile(r"\^?\s*(?:\{\s*\\circ\s*\}|\\circ(?![A-Za-z]))|\\degrees?(?![A-Za-z])")
_MATHS_MARKS = re.compile(r"(?<!\\)\\[()\[\]]")


def undress(text: str) -> str:
    r"""The bare words and signs: ``**\(\$1{,}450\)**`` is ``$1,450``.

    Fractions become ``\frac{a}{b}``, raised digits ``^{…}``, degrees ``°``. A dollar sign that is left is money.
    """
    if text.isascii() and text.isalnum():
        return text
    text = _SUPERSCRIPT.sub(lambda found: "^{" + found[0].translate(_SUPERSCRIPTS) + "}", text)
    text = unicodedata.normalize("NFKC", _VULGAR_AFTER_DIGIT.sub(" ", text.replace("º", "°"))).translate(_TYPOGRAPHY)
    text = _UPRIGHT.sub(lambda found: _LONE_UNIT.sub(lambda unit: _UNIT_NAMES[unit[0]], found[0]), text)
    while (bare := _WRAPPERS.sub(r" \1 ", text)) != text:
        text = bare
    text = _MATHS_MARKS.sub(" ", _SIZES.sub("", text)).replace("\\!", "").replace("{,}", ",")
    text = _DEGREES.sub("°", _SPACES.sub(" ", text))
    text = _SHORT_FRACTION.sub(_braced, _FRACTION.sub(r"\\frac", text))
    text = _without_marks(text.replace("\\%", "%").replace("**", "").replace("`", ""))
    return text.strip().strip("*_").strip()


def _braced(found: re.Match[str]) -> str:
    top, bottom = found[1] or found[2], found[3] or found[4]
    return f"\\frac{{{top}}}{{{bottom}}}"


def _without_marks(text: str) -> str:
    """Dollar signs that come in pairs mark mathematics; an escaped or single one is money."""
    text = text.replace("\\$", "\0")
    if text.count("$") % 2 == 0:
        text = text.replace("$", " ")
    return text.replace("\0", "$")
