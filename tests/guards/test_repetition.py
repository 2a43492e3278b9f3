"""Loops, and what only looks like one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corea.guards.base import Judged
from corea.guards.repetition import repetition

SENTENCE = "The Spanish-American War was a conflict, and the war ended in 1896. "


def said(text: str) -> str | None:
    return repetition(Judged(question="?", text=text, answer=None))


@pytest.mark.parametrize(
    "text",
    [
        "Let us see. " + SENTENCE * 6,
        "Let us see. " + SENTENCE * 6 + "So the answer is 5.",
        "a state of being in " * 30,
        "very " * 60,
        "因为这个数是质数。" * 10,
        "0 " * 300,
        "\n".join(["- Fish are generally not afraid of cats."] * 12),
    ],
)
def test_words_that_come_again_and_again_are_deferred(text: str) -> None:
    assert said(text) is not None


@pytest.mark.parametrize(
    "text",
    [
        "",
        SENTENCE,
        SENTENCE * 2 + "But then the treaty was signed elsewhere, by other people, for reasons of their own.",
        " + ".join(["5"] * 50) + " = 250",
        "0.3333333333333333333333333333333333333333333333333333",
        "\\frac{x}{5} + " * 12 + "\\frac{x}{5}",
        "\n".join(f"{n} × 7 = {7 * n}" for n in range(1, 30)),
        "\n".join(f"{n}) this option is wrong because of reason {n}" for n in range(1, 12)),
    ],
)
def test_lists_sums_and_tables_are_not(text: str) -> None:
    assert said(text) is None


@given(st.lists(st.sampled_from(["a", "cat", "sat", "1", "+", "."]), max_size=400))
def test_a_loop_is_found_wherever_it_stands(words: list[str]) -> None:
    loop = "round and round the garden goes the bear with all the children after him "
    text = " ".join(words)
    assert said(f"{text} {loop * 5}") is not None
    assert said(f"{loop * 5} {text}") is not None


def test_a_very_long_reply_is_looked_at_for_its_end_only() -> None:
    text = " ".join(f"word{n % 97} of{n % 89}" for n in range(50_000))
    # The suite's time limit is the assertion as well: quadratic work would take minutes.
    assert said(text) is None
