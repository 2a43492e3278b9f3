r"""The confidence protocol: what models are asked to write, and how it is read back.

A trained small model ends with two lines, ``Answer: …`` and ``Confidence: d``, the digit d from 0 to 9 standing for
(d + 0.5)/10. One digit is one token in the tokenizers we use, so a server's ``top_logprobs`` at that place give the
whole distribution. Untrained models write what they like; :func:`parse` understands most of it, never raises, and says
*unknown* (None) for the rest. Knows no model and no threshold.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from corea.types import Kind

#: What digit d stands for: (d + 0.5)/10.
DIGIT_VALUES: tuple[float, ...] = tuple((digit + 0.5) / 10 for digit in range(10))

#: Instruction to a model that is not asked for its confidence in the same breath.
PLAIN_PROMPT = "Please reason step by step, and put your final answer within \\boxed{}."

#: Instruction for a question whose answer is a program.
CODE_PROMPT = "Please put the whole program into one ```python block."

#: Instruction to a model that states its confidence inline.
INLINE_PROMPT = (
    "Please reason step by step. End with exactly two lines:\n"
    "Answer: <the final answer alone>\n"
    "Confidence: <one digit from 0 to 9: 0 = surely wrong, 9 = surely right>"
)

#: Appended to a user's own system prompt when the tier asks inline.
INLINE_SUFFIX = (
    "\n\nEnd with exactly two lines:\nAnswer: <the final answer alone>\n"
    "Confidence: <one digit from 0 to 9: 0 = surely wrong, 9 = surely right>"
)

#: Appended where the answer is a program, which has no line of its own.
INLINE_CODE_SUFFIX = (
    "\n\nAfter it, end with exactly one line:\nConfidence: <one digit from 0 to 9: 0 = surely wrong, 9 = surely right>"
)

#: Second turn that asks for the digit.
DIGIT_QUESTION = (
    "How sure are you that your answer above is right? "
    "Reply with one digit from 0 (surely wrong) to 9 (surely right) and nothing else."
)

#: Second turn of P(True), after Kadavath et al. 2022 (arXiv 2207.05221), section 3.
TRUE_FALSE_QUESTION = "Is the answer above correct? Reply with one word, True or False."

#: Words for probabilities, as people read them (medians of the survey by Fagen-Ulmschneider 2015, used for models by
#: Tian et al. 2023, arXiv 2305.14975, appendix C), and the plain levels high, medium, low at the thirds' centres.
WORD_VALUES: dict[str, float] = {
    "almost certain": 0.95,
    "highly likely": 0.9,
    "very likely": 0.9,
    "very high": 0.9,
    "very confident": 0.9,
    "very sure": 0.9,
    "highly confident": 0.9,
    "highly unlikely": 0.05,
    "very unlikely": 0.05,
    "very low": 0.1,
    "not confident": 0.2,
    "not certain": 0.2,
    "not sure": 0.2,
    "unsure": 0.2,
    "uncertain": 0.2,
    "unlikely": 0.2,
    "likely": 0.7,
    "probable": 0.7,
    "certain": 0.95,
    "confident": 0.8,
    "sure": 0.8,
    "high": 5 / 6,
    "medium": 0.5,
    "moderate": 0.5,
    "about even": 0.5,
    "low": 1 / 6,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Parsed:
    """A reply, taken apart.

    ``visible`` is the reply without its confidence line: what a client may see. ``confidence`` is the stated
    probability, None where nothing readable was stated. ``digit_at`` is the offset, in characters of the reply, of the
    protocol's digit, where it was written just so.
    """

    visible: str
    answer: str | None
    confidence: float | None
    digit_at: int | None


# The label may be dressed up (**Confidence:** 9, "- Confidence level: high"). Runs are bounded: no backtracking bombs.
_CONFIDENCE_LINE = re.compile(
    r"^[ \t>*_#\-]{0,12}(?:my |the )?(?:final )?confidence(?: level| score| rating)?[ \t*_]{0,6}"
    r"(?:[:=]|\bis\b)(?P<value>[^\n]{0,160})$",
    re.IGNORECASE | re.MULTILINE,
)
_CONFIDENCE_INSIDE = re.compile(
    r"\bconfidence(?: level| score| rating)?[ \t*_]{0,6}(?:[:=]|\bis\b|\bof\b)(?P<value>[^\n]{0,60})", re.IGNORECASE
)
_SURE = re.compile(r"\b(?:I am|I'm|I feel)[ \t](?P<value>[^\n.]{0,24}?\b(?:sure|certain|confident)\b)", re.IGNORECASE)
_DRESS = re.compile(r"\\boxed\{|\\text\{|\\\(|\\\)|\\%|[{}$*_`\"'()\[\]]")
_NUMBER = re.compile(
    r"(?<![\d.\w\-−])(?P<number>[0-9]{1,6}(?:\.[0-9]{1,12})?)(?![\d\w])[ \t]*(?P<unit>%|percent\b|/[ \t]*[0-9]{1,4})?"
)
_ANSWER_LINE = re.compile(
    r"^[ \t>*_#\-]{0,12}(?:the )?(?:final )?answer[ \t*_]{0,6}(?::|\bis\b:?)[ \t*_]{0,6}(?P<answer>[^\n]{1,2000})$",
    re.IGNORECASE | re.MULTILINE,
)
_ANSWER_IS = re.compile(r"\b(?:final )?answer is:?[ \t]{0,4}(?P<answer>[^\n]{1,400})", re.IGNORECASE)
_HASHES = re.compile(r"^####[ \t]*(?P<answer>[^\n]{1,400})$", re.MULTILINE)
_LAST_NUMBER = re.compile(r"[-−]?\$?\d[\d,]{0,24}(?:\.\d{1,24})?(?:/\d{1,12})?%?")
_CHOICE = re.compile(r"(?<![A-Za-z0-9'])\(?(?P<choice>[A-J])\)?(?![A-Za-z0-9'])")
_BOOLEAN = re.compile(r"\b(?P<boolean>yes|no|true|false)\b", re.IGNORECASE)


#: Added for a question whose kind of answer is known, so that a right answer is not lost for its form.
KIND_HINTS: dict[Kind, str] = {
    "choice": " The final answer is the letter of the right option.",
    "boolean": " The final answer is yes or no.",
}


def system_prompt(*, inline: bool, custom: str | None = None, kind: Kind | None = None) -> str:
    """The instruction a tier gives its model. A custom one keeps the user's words and gains the protocol's."""
    if kind == "code":
        return (custom or CODE_PROMPT) + (INLINE_CODE_SUFFIX if inline else "")
    if custom is not None:
        return custom + INLINE_SUFFIX if inline else custom
    hint = KIND_HINTS.get(kind, "") if kind else ""
    return INLINE_PROMPT.replace("step by step.", f"step by step.{hint}") if inline else PLAIN_PROMPT + hint


def parse(text: str, kind: Kind | None = None) -> Parsed:
    """Take a reply apart. ``kind`` lets an answer be found without a label. Never raises; linear in the text."""
    visible = _visible(text)
    value, digit_at = _stated(text)
    return Parsed(visible=visible, answer=_answer(visible, kind), confidence=value, digit_at=digit_at)


def parse_confidence(text: str) -> float | None:
    """Probability stated in the reply to a direct question ("7", "90%", "quite sure"); None if there is none."""
    stated, _ = _stated(text)
    return _value(text.strip()[:160])[0] if stated is None else stated


def _visible(text: str) -> str:
    if not _CONFIDENCE_LINE.search(text):
        return text
    return _CONFIDENCE_LINE.sub("", text).rstrip()


def _stated(text: str) -> tuple[float | None, int | None]:
    """The last confidence stated, and where its digit stands. A line of its own goes before a remark."""
    for pattern in (_CONFIDENCE_LINE, _CONFIDENCE_INSIDE, _SURE):
        match = _last(pattern, text)
        if match is None:
            continue
        value, offset = _value(match["value"])
        digit_at = match.start("value") + offset if offset is not None else None
        return value, digit_at
    return None, None


def _value(written: str) -> tuple[float | None, int | None]:
    """Probability written as a digit, number, percentage, fraction or word; and the offset of a protocol digit."""
    # Blanking keeps offsets: "\boxed{9}" must lead back to its 9.
    plain = _DRESS.sub(lambda m: " " * len(m[0]), written)
    match = _NUMBER.search(plain)
    if match is None:
        return _word_value(plain), None
    value = _number_value(match["number"], (match["unit"] or "").replace(" ", "").replace("\t", ""))
    is_digit = match["unit"] is None and len(match["number"]) == 1
    return value, match.start("number") if is_digit else None


def _number_value(number: str, unit: str) -> float | None:
    value = float(number)
    if unit.startswith("/"):
        whole = float(unit[1:])
        return value / whole if whole > 0 and value <= whole else None
    if unit:
        return value / 100 if value <= 100 else None
    if "." in number:
        # 0.9 is a probability; 87.5 a percentage; 1.7 is neither.
        return value if value <= 1 else (value / 100 if 10 < value <= 100 else None)
    if len(number) == 1:
        return DIGIT_VALUES[int(number)]
    # A bare 10 may be 10 % or 10 of 10: unknown.
    return value / 100 if 10 < value <= 100 else None


def _word_value(text: str) -> float | None:
    words = " ".join(text.lower().split())
    found = [
        (words.find(word), -len(word), value) for word, value in WORD_VALUES.items() if re.search(rf"\b{word}\b", words)
    ]
    return min(found)[2] if found else None


def _answer(text: str, kind: Kind | None) -> str | None:
    if kind == "code":
        # The whole reply is the answer: the grader looks for the program in it.
        return None
    for pattern in (_ANSWER_LINE, _HASHES):
        if (match := _last(pattern, text)) and (clean := _clean(match["answer"])):
            return clean
    if (boxed := last_boxed(text)) is not None and (clean := _clean(boxed)):
        return clean
    if (match := _last(_ANSWER_IS, text)) and (clean := _clean(match["answer"])):
        return clean
    return _unlabelled(text, kind)


def _unlabelled(text: str, kind: Kind | None) -> str | None:
    """The last thing in the text that looks like an answer of this kind."""
    if kind == "number" and (numbers := _LAST_NUMBER.findall(text)):
        return str(numbers[-1])
    if kind == "choice" and (match := _last(_CHOICE, text)):
        return match["choice"]
    if kind == "boolean" and (match := _last(_BOOLEAN, text)):
        return match["boolean"].lower()
    return None


def last_boxed(text: str) -> str | None:
    r"""Content of the last ``\boxed{…}``, braces balanced; None where there is none or it is not closed."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    depth = 0
    opening = start + len("\\boxed")
    for index in range(opening, min(len(text), opening + 2000)):
        depth += {"{": 1, "}": -1}.get(text[index], 0)
        if depth == 0:
            return text[opening + 1 : index]
    return None


def _clean(answer: str) -> str:
    """An answer without its wrapping: dollar signs, \\( \\), asterisks, \\boxed, a full stop."""
    boxed = last_boxed(answer)
    answer = answer if boxed is None else boxed
    answer = answer.strip().strip("*_`").strip()
    for left, right in (("\\(", "\\)"), ("\\[", "\\]"), ("$$", "$$"), ("$", "$")):
        if len(answer) > len(left) + len(right) and answer.startswith(left) and answer.rstrip(".").endswith(right):
            answer = answer.rstrip(".")[len(left) : -len(right)].strip()
    return answer.rstrip(".").strip("*_` ")


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    match = None
    for match in pattern.finditer(text):  # noqa: B007 - the last one is wanted
        pass
    return match
