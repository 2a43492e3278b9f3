"""Replies that decline, and replies that only sound like it."""

from __future__ import annotations

import pytest

from corea.guards.base import Judged
from corea.guards.refusal import refusal
from corea.types import Kind


def said(text: str, answer: str | None = None, kind: Kind = "text") -> str | None:
    return refusal(Judged(question="?", text=text, answer=answer, kind=kind))


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't assist with that request.",
        "I’m sorry, but I can’t help with that.",
        "I apologize, but I am unable to provide an answer without more context.",
        "As an AI language model, I cannot predict the future.",
        "As an AI, I don't have opinions, so I can't say.",
        "I cannot help with creating weapons.",
        "I won't answer that.",
        "That would be against my programming.",
        "很抱歉，我无法回答这个问题。",
        "申し訳ありませんが、その質問にはお答えできません。",
        "Lo siento, pero no puedo ayudar con eso.",
        "Je suis désolé, mais je ne peux pas répondre.",
        "Es tut mir leid, aber ich kann dabei nicht helfen.",
        "Извините, я не могу ответить.",
    ],
)
def test_a_refusal_is_deferred(text: str) -> None:
    assert said(text) is not None


@pytest.mark.parametrize("answer", ["I don't know", "Not enough information", "unknown", "Cannot be determined", "N/A"])
def test_no_answer_in_place_of_one_is_deferred(answer: str) -> None:
    assert said(f"Answer: {answer}", answer) is not None


@pytest.mark.parametrize(
    "text,answer,kind",
    [
        ("He cannot help his brother because he cannot afford it.", None, "text"),
        ("Answer: D) Cannot be determined", "D) Cannot be determined", "choice"),
        ("The unknown x is 5.", "5", "number"),
        ("Sorry to keep you waiting: the train covers 60 km.", "60", "number"),
        ("We cannot divide by zero, so x = 2.", "2", "number"),
        ("An AI cannot dream. The answer is no.", "no", "boolean"),
        ("Let us see what follows. " * 20 + "The letter ends: I'm sorry, but I can't help you.", "the letter", "text"),
        ("", None, "text"),
    ],
)
def test_an_answer_that_speaks_of_refusing_is_not(text: str, answer: str | None, kind: Kind) -> None:
    assert said(text, answer, kind) is None
