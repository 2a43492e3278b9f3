"""The parser: what it reads, what it says is unknown, and that nothing makes it raise."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from corea.confidence.protocol import DIGIT_VALUES, last_boxed, parse, parse_confidence, system_prompt
from corea.types import Kind


@pytest.mark.parametrize(
    "line,expected",
    [
        ("Confidence: 7", 0.75),
        ("Confidence: 0", 0.05),
        ("Confidence: 9", 0.95),
        ("**Confidence:** 9", 0.95),
        ("confidence = 3", 0.35),
        ("- Confidence level: 8.", 0.85),
        ("Confidence: \\boxed{9}", 0.95),
        ("Therefore the profit is \\(\\boxed{-10000}\\) and the confidence is \\(\\boxed{9}\\).", 0.95),
        ("Confidence: 90%", 0.9),
        ("Confidence: 90 percent", 0.9),
        ("Confidence: 0.9", 0.9),
        ("Confidence: 1.0", 1.0),
        ("Confidence: 87.5", 0.875),
        ("Confidence: 100%", 1.0),
        ("Confidence: 95", 0.95),
        ("Confidence: 9/10", 0.9),
        ("Confidence: 10/10", 1.0),
        ("I am 90% sure.", 0.9),
        ("I'm very sure that it is 4", 0.9),
        ("I am not sure.", 0.2),
        ("Confidence: high", 5 / 6),
        ("Confidence: very low", 0.1),
        ("My confidence level is medium", 0.5),
        ("Confidence: uncertain", 0.2),
    ],
)
def test_a_stated_confidence_is_read(line: str, expected: float) -> None:
    parsed = parse(f"Some reasoning.\nAnswer: 4\n{line}")
    assert parsed.confidence == pytest.approx(expected)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Answer: 42",
        "Confidence:",
        "Confidence: 10",  # of ten, or percent?
        "Confidence: -3",
        "Confidence: 250%",
        "Confidence: 12/10",
        "Confidence: 3/0",
        "Confidence: 1.7",
        "Confidence: <one digit>",
        "Confidence: banana",
        "Confidence intervals are 90% wide",
        "Is 9 a confident number?",
    ],
)
def test_what_cannot_be_read_is_unknown(text: str) -> None:
    assert parse(text).confidence is None


def test_the_last_statement_counts() -> None:
    assert parse("Confidence: 2\nWait, no.\nConfidence: 8").confidence == pytest.approx(0.85)


@pytest.mark.parametrize("digit", range(10))
def test_a_protocol_digit_is_located(digit: int) -> None:
    text = f"So it is 4.\nAnswer: 4\nConfidence: {digit}"
    parsed = parse(text)
    assert parsed.confidence == DIGIT_VALUES[digit]
    assert parsed.digit_at is not None
    assert text[parsed.digit_at] == str(digit)


def test_a_percentage_is_no_protocol_digit() -> None:
    assert parse("Confidence: 90%").digit_at is None


def test_the_client_never_sees_the_confidence_line() -> None:
    assert parse("Six times seven.\nAnswer: 42\nConfidence: 7\n").visible == "Six times seven.\nAnswer: 42"


@pytest.mark.parametrize(
    "text,kind,answer",
    [
        ("Answer: 42", None, "42"),
        ("**Final answer:** $42$.", None, "42"),
        ("The answer is 42.", None, "42"),
        ("so \\boxed{\\frac{1}{2}} it is", None, "\\frac{1}{2}"),
        ("Answer: \\(\\boxed{7}\\)", None, "7"),
        ("#### 1,450", None, "1,450"),
        ("first \\boxed{1}, then \\boxed{2}", None, "2"),
        ("Answer: 3\nNo: Answer: 4\nAnswer: 5", None, "5"),
        ("we get 3 + 4 = 7 apples", "number", "7"),
        ("it must be (C)", "choice", "C"),
        ("No. Or rather: yes", "boolean", "yes"),
        ("we get 3 + 4 = 7 apples", None, None),
        ("\\boxed{never closed", None, None),
        ("", "number", None),
    ],
)
def test_an_answer_is_found(text: str, kind: Kind | None, answer: str | None) -> None:
    assert parse(text, kind).answer == answer


def test_nested_braces_stay_balanced() -> None:
    assert last_boxed("\\boxed{\\frac{a_{1}}{b}} end") == "\\frac{a_{1}}{b}"


@pytest.mark.parametrize(
    "text,value", [("7", 0.75), ("90%", 0.9), ("Confidence: 3", 0.35), ("very likely", 0.9), ("", None), ("?", None)]
)
def test_a_direct_question_gets_a_bare_value(text: str, value: float | None) -> None:
    assert parse_confidence(text) == (None if value is None else pytest.approx(value))


def test_a_users_system_prompt_keeps_its_words_and_gains_the_protocol() -> None:
    assert system_prompt(inline=True, custom="Be brief.").startswith("Be brief.\n")
    assert "Confidence:" in system_prompt(inline=True, custom="Be brief.")
    assert system_prompt(inline=False, custom="Be brief.") == "Be brief."


def test_a_known_kind_of_answer_is_asked_for() -> None:
    assert "letter" in system_prompt(inline=False, kind="choice")
    assert "yes or no" in system_prompt(inline=True, kind="boolean")
    assert system_prompt(inline=False, kind="number") == system_prompt(inline=False)
    assert system_prompt(inline=False, custom="Be brief.", kind="choice") == "Be brief."


_pieces = st.sampled_from(
    ["Confidence", "confidence:", ":", " is ", "\n", "9", "90%", "0.", "/10", "**", "\\boxed{", "}", "I am ", "sure",
     "high", "Answer:", "####", "-", "−", " ", "\t", "$", "\x00", "٣", "²", "Ⅸ", "e9", "NaN", "1e400", "٪", "�"]
)  # fmt: skip
_texts = st.one_of(st.text(max_size=300), st.lists(_pieces, max_size=40).map("".join))


@example(text="CONFIDENCE:٠", kind=None)
@given(text=_texts, kind=st.sampled_from([None, "number", "choice", "boolean", "text", "expression"]))
def test_the_parser_never_raises_and_keeps_its_promises(text: str, kind: Kind | None) -> None:
    parsed = parse(text, kind)
    assert parsed.confidence is None or 0.0 <= parsed.confidence <= 1.0
    assert parsed.answer is None or (parsed.answer != "" and parsed.answer == parsed.answer.strip())
    if parsed.digit_at is not None:
        assert text[parsed.digit_at] in "0123456789"
        assert parsed.confidence == DIGIT_VALUES[int(text[parsed.digit_at])]
    again = parse(parsed.visible, kind)
    assert again.visible == parsed.visible, "a visible text holds no confidence line"
    assert parse_confidence(text) is None or 0.0 <= (parse_confidence(text) or 0.0) <= 1.0


@given(
    reasoning=st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=200).filter(
        lambda text: "onfidence" not in text
    ),
    digit=st.integers(0, 9),
)
def test_the_protocols_two_lines_are_read_whatever_came_before(reasoning: str, digit: int) -> None:
    parsed = parse(f"{reasoning}\nAnswer: 42\nConfidence: {digit}")
    assert parsed.answer == "42"
    assert parsed.confidence == DIGIT_VALUES[digit]
    assert "onfidence" not in parsed.visible


@pytest.mark.timeout(20)
@pytest.mark.parametrize("piece", ["Confidence ", "confidence: ", "I am ", "Answer is ", "\\boxed{", "* ", "9,", "(A"])
def test_the_parser_is_linear_in_the_text(piece: str) -> None:
    """200 kB of one piece: a backtracking bomb would not end before the test's time limit."""
    parse(piece * (200_000 // len(piece)), "number")
