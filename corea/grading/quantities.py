r"""Numbers in answers, read exactly: "$1,450.00", "18 dollars a day", "1 1/2", "50 %", "5 million", "1.5 \times 10^3".

A text is a number if it holds one and the rest is dress: words, a unit, a currency. Mathematics around it (2π, √3,
5x, ± 5) is not dress; then there is no number, and algebra must decide. Knows no shapes and no algebra.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from corea.grading.dress import undress

_N = r"(?:\d+(?:\.\d*)?|\.\d+)"
_TEN_TO = r"10\s*\^\s*\{?\s*"
#: The first form that fits, from left to right.
_FORMS = re.compile(
    rf"""
    (?P<sign>(?:(?<![\w)}}.])[-+]|\b(?:minus|negative)\b)\s*)?
    (?: (?P<scientific>{_N}) \s*(?:×|\\times|\\cdot|\*|x)\s*{_TEN_TO}(?P<by>[-+]?\d{{1,3}})\s*\}}?
      | {_TEN_TO}(?P<power>[-+]?\d{{1,3}})\s*\}}?
      | (?P<float>{_N}[eE][-+]?\d{{1,3}}) (?![\w.])
      | (?P<recurring_whole>\d*)\.(?P<fixed>\d*)\\overline\s*\{{?(?P<recurring>\d+)\}}?
      | (?P<whole>\d+)\s*(?:\s(?:and\s+)?(?P<mixed_top>\d+)\s*/\s*(?P<mixed_bottom>\d+)
                          |\\frac\{{(?P<mixed_tex_top>\d+)\}}\{{(?P<mixed_tex_bottom>\d+)\}})
      | \\frac\{{\s*(?P<tex_top>[-+]?{_N})\s*\}}\{{\s*(?P<tex_bottom>[-+]?{_N})\s*\}}
      | (?P<top>{_N})\s*/\s*(?P<bottom>{_N})
      | (?P<plain>{_N})
    )""",
    re.VERBOSE,
)
_PLAIN = re.compile(r"[-+]?\d{1,18}(?:\.\d{1,9})?")
#: 1,450 and 1 450 and 1'450, the same sign in all places; and 1.450,50.
_GROUPS = re.compile(r"(?<![\d.,'(\[])\d{1,3}(?:(?P<mark>[,' ])\d{3})(?:(?P=mark)\d{3})*(?![\d'])(?!, ?\d)(?! \d)")
_CONTINENTAL = re.compile(r"(?<![\d.,])(\d{1,3}(?:\.\d{3})+),(\d{1,2})(?![\d.,])")
_CURRENCIES = {"$": "dollar", "£": "gbp", "€": "euro", "¥": "yen", "₹": "rupee", "¢": "cent"}
#: What is meant by a unit's name: one name for all its spellings. "in" and "pounds" mean too much to be here.
_UNITS: dict[str, tuple[str, ...]] = {
    spelling: tuple(meaning.split("/"))
    for meaning, spellings in {
        "dollar": "dollar dollars usd bucks",
        "cent": "cent cents",
        "gbp": "gbp",
        "euro": "euro euros eur",
        "yen": "yen",
        "rupee": "rupee rupees rs inr",
        "s": "s sec secs second seconds",
        "min": "min mins minute minutes",
        "h": "h hr hrs hour hours",
        "day": "day days",
        "week": "week weeks wk wks",
        "month": "month months",
        "year": "year years yr yrs",
        "mm": "mm millimeter millimeters millimetre millimetres",
        "cm": "cm centimeter centimeters centimetre centimetres",
        "m": "m meter meters metre metres",
        "km": "km kilometer kilometers kilometre kilometres",
        "inch": "inch inches",
        "ft": "ft foot feet",
        "yd": "yd yds yard yards",
        "mi": "mi mile miles",
        "mg": "mg milligram milligrams",
        "g": "g gram grams",
        "kg": "kg kgs kilogram kilograms",
        "lb": "lb lbs",
        "oz": "oz ounce ounces",
        "ton": "ton tons tonne tonnes",
        "ml": "ml milliliter milliliters millilitre millilitres",
        "l": "l liter liters litre litres",
        "gallon": "gal gallon gallons",
        "mi/h": "mph",
        "km/h": "kph kmh kmph",
        "unit": "unit units",
    }.items()
    for spelling in spellings.split()
}
_SHORT_UNITS = frozenset({"c", "f", "am", "pm", "in", "st", "nd", "rd", "th"})
_SCALES = {
    "hundred": 100,
    "thousand": 1000,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
    "dozen": 12,
}
_UNIT_POWER = re.compile(
    r"(?<![A-Za-z\\])(?P<unit>[mck]?m|s|h|in|inch(?:es)?|ft|feet|foot|yd|yards?|mi|miles?|units?"
    r"|(?:centi|kilo)?met(?:er|re)s?)(?:\s*\^\s*(?:\{\s*-?[1-4]\s*\}|-?[1-4])|[23])(?![\w.])"
)
#: Words that make another number of the one they stand by, wherever they stand; before it; and next to it.
_CHANGING = frozenset(
    [
        "half",
        "third",
        "quarter",
        "twice",
        "triple",
        "squared",
        "cubed",
        "sqrt",
        "root",
        "factorial",
        "sin",
        "cos",
        "tan",
        "log",
        "exp",
        "mod",
        "divided",
        "infinity",
        "inf",
        "nan",
        "choose",
    ]
)
_CHANGING_BEFORE = frozenset(["not", "no", "nor", "never", "except", "than"])
_CHANGING_BESIDE = frozenset(
    ["or", "over", "under", "above", "below", "between", "least", "most", "plus", "minus", "negative", "double"]
)
#: Words of two letters that mean nothing; others of two letters, or one, may be variables.
_SMALL_WORDS = frozenset(
    {
        *(
            "an",
            "is",
            "of",
            "on",
            "at",
            "to",
            "by",
            "it",
            "he",
            "we",
            "as",
            "so",
            "be",
            "go",
            "if",
            "up",
            "do",
            "my",
            "me",
        )
    }
    | {"us", "am", "no", "or", "mr", "ms"}
)
#: "$18 a day"; "18 - a" is mathematics.
_ARTICLE = re.compile(r"\b[Aa]\s+(?=[A-Za-z]{2})")
#: Signs of mathematics. "/" and "-" between letters are none: km/h, three-legged.
_MATHS = re.compile(r"[\^_\\|√π∞±=<>≤≥≠*+×∫∑{}]|(?<![A-Za-z])/|/(?![A-Za-z])|\.\.")
_WORD = re.compile(r"[^\W\d_]+(?:[-'][^\W\d_]+)*")
#: GB, Mr, DS, where they stand alone: two small letters may be a product of variables.
_INITIALS = re.compile(r"(?<=\s)[A-Z][A-Za-z]\b")
_SEVERAL = re.compile(r"[,;]|\b(?:and|or)\b")
#: "x = 5 + 3 = 8" begins with a name for the result; other lone letters are unknowns.
_NAME = re.compile(r"^\s*[A-Za-z](?:\([a-z]\))?\s*=")
_UNKNOWN = re.compile(r"(?<![A-Za-z\\])[A-HJ-Za-z](?![A-Za-z'])")
_TIMES = re.compile(r"(?<=\d)\s*x\s*(?=[\d$])")
_COMPARISONS = ("<", ">", "!", "≠", "≤", "≥")
_ONES = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
]
_ONES += ["seventeen", "eighteen", "nineteen"]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_IN_WORDS = {word: value for value, word in enumerate(_ONES)}
_IN_WORDS |= {word: 10 * value for value, word in enumerate(_TENS, start=2)}
#: Decimals from which on a number is taken for a computer's rounding of another.
_FLOAT_DECIMALS = 10
_FLOAT_TOLERANCE = Fraction(1, 10**_FLOAT_DECIMALS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """A number, its scale word (5 million) counted in. ``percent`` does not divide it: 50 % has the value 50."""

    value: Fraction
    percent: bool = False
    units: frozenset[str] = frozenset()
    decimals: int = 0


def number_of(text: str) -> Fraction | None:
    """The one number a text holds, exactly: "$1,450.00", "18 dollars", "3/4", "50%" (50). None for none or several."""
    found = quantity_of(after_equals(text))
    return None if found is None else found.value


def after_equals(text: str) -> str:
    """What stands last in a chain of equals signs, 8 of "5 + 3 = 8"; the text itself if it is no such chain.

    An equation to be solved, 3x = 24, is none, and neither are several.
    """
    before, sign, after = text.rpartition("=")
    if not sign or not after.strip() or before[-1:] in _COMPARISONS or _SEVERAL.search(_without_groups(before)):
        return text
    worked = _TIMES.sub(" ", _NAME.sub("", before))
    return text if any(char.isdigit() for char in worked) and _UNKNOWN.search(worked) else after


def quantity_of(text: str, *, letters: bool = True) -> Quantity | None:
    """The one number of a text; None if there is none, or several. With ``letters``, m may be its unit: 5m."""
    if _PLAIN.fullmatch(text):
        return Quantity(value=Fraction(text))
    text = _UNIT_POWER.sub(r"\g<unit>", _without_groups(undress(text)))
    if not any(char.isdigit() for char in text):
        return _in_words(text)
    text, currencies = _without_currencies(text)
    found = list(_FORMS.finditer(text))
    if len(found) != 1 or (value := _value(found[0])) is None:
        return None
    before, after = text[: found[0].start()], text[found[0].end() :]
    if not _is_dress(before, after, letters=letters):
        return None
    first = (_WORD.match(after.lstrip(" -")) or [""])[0].lower()
    return Quantity(
        value=value * _SCALES.get(first, 1),
        percent=after.lstrip().startswith("%") or first in {"percent", "pct"} or after.lstrip().startswith("per cent"),
        units=currencies | _units(before, after),
        decimals=len(found[0]["plain"].partition(".")[2]) if found[0]["plain"] else 0,
    )


def same_quantity(answer: Quantity, gold: Quantity) -> bool:
    """Is it the same number? Units must not contradict each other; nothing is converted.

    50 % is 0.5. It is also 50, as question sets write it, unless that is a share itself: 0.5 % is not 0.5.
    """
    if answer.units and gold.units and not answer.units & gold.units:
        return False
    if answer.percent != gold.percent:
        percent, plain = (answer.value, gold.value) if answer.percent else (gold.value, answer.value)
        return percent == 100 * plain or (percent == plain and not 0 < abs(plain) < 1)
    if answer.decimals >= _FLOAT_DECIMALS:
        return abs(answer.value - gold.value) <= abs(gold.value) * _FLOAT_TOLERANCE
    return answer.value == gold.value


def units_of(text: str) -> frozenset[str]:
    """Units named in a text, by their one name."""
    return frozenset(unit for word in _WORD.findall(text.lower()) for unit in _UNITS.get(word, ()))


def _without_groups(text: str) -> str:
    text = _GROUPS.sub(lambda found: re.sub(r"\D", "", found[0]), text)
    return _CONTINENTAL.sub(lambda found: f"{found[1].replace('.', '')}.{found[2]}", text)


def _without_currencies(text: str) -> tuple[str, frozenset[str]]:
    found = frozenset(name for sign, name in _CURRENCIES.items() if sign in text)
    return (re.sub(f"[{''.join(_CURRENCIES)}]", " ", text) if found else text), found


def _value(found: re.Match[str]) -> Fraction | None:
    part = found.groupdict()
    value: Fraction | None
    if part["by"] or part["power"]:
        value = Fraction(part["scientific"] or "1") * Fraction(10) ** int(part["by"] or part["power"])
    elif part["recurring"]:
        fixed, period = part["fixed"], part["recurring"]
        digits = Fraction(int(fixed + period) - int(fixed or "0"), 10 ** len(fixed) * (10 ** len(period) - 1))
        value = int(part["recurring_whole"] or "0") + digits
    elif part["whole"]:
        top, bottom = part["mixed_top"] or part["mixed_tex_top"], part["mixed_bottom"] or part["mixed_tex_bottom"]
        value = int(part["whole"]) + Fraction(int(top), int(bottom)) if int(bottom) else None
    elif part["top"] or part["tex_top"]:
        above, below = Fraction(part["top"] or part["tex_top"]), Fraction(part["bottom"] or part["tex_bottom"])
        value = above / below if below else None
    else:
        value = Fraction(part["float"] or part["plain"])
    negative = (part["sign"] or "").strip() in {"-", "minus", "negative"}
    return -value if negative and value is not None else value


def _is_dress(before: str, after: str, *, letters: bool) -> bool:
    """Is what stands around a number free of mathematics, and of words that change it?"""
    if before.startswith("{") and after.endswith("}"):
        before, after = before[1:], after[:-1]
    if after.startswith("!") or _MATHS.search(before) or _MATHS.search(after):
        return False
    left, right = _words(before), _words(after)
    if before[-1:].isalpha() and left[-1] not in _UNITS:
        return False
    if after[:1].isalpha() and not _is_unit(right[0], letters=letters):
        return False
    if _CHANGING & {*left, *right} or _CHANGING_BEFORE & {*left} or _CHANGING_BESIDE & {*left[-1:], *right[:1]}:
        return False
    return all(
        len(word) > 2 or _is_small(word, follows_number=at == len(left), letters=letters)
        for at, word in enumerate((*left, *right))
    )


def _words(text: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(_ARTICLE.sub(" ", _INITIALS.sub(" ", text)))]


def _is_unit(word: str, *, letters: bool) -> bool:
    return (word in _UNITS or word in _SHORT_UNITS) and (letters or len(word) > 1)


def _is_small(word: str, *, follows_number: bool, letters: bool) -> bool:
    """May a word of one or two letters stand beside a number? As its unit, or as a word that means nothing."""
    if not word.isascii():
        return not "α" <= word <= "ω"
    if word in _SMALL_WORDS or (len(word) == 2 and (word in _UNITS or word in _SHORT_UNITS)):
        return True
    # "m/s": the unit after the slash does not follow the number, and is a letter all the same.
    return letters and (word in {"s", "h", "m"} or follows_number) and _is_unit(word, letters=letters)


def _units(before: str, after: str) -> frozenset[str]:
    degrees = frozenset({"degree"}) if "°" in after or "degree" in after else frozenset()
    return units_of(before) | units_of(after) | degrees


def _in_words(text: str) -> Quantity | None:
    """Numbers up to ninety-nine in words, with a unit at most."""
    words = re.findall("[a-z]+", text.lower())
    numbers = [_IN_WORDS[word] for word in words if word in _IN_WORDS]
    if not all(word in _UNITS for word in words[len(numbers) :]):
        return None
    match numbers:
        case [value]:
            pass
        case [tens, ones] if tens >= 20 and 0 < ones < 10:
            value = tens + ones
        case _:
            return None
    return Quantity(value=Fraction(value), units=units_of(text))
