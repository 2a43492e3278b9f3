"""LiteLLM's complexity router: its package, the local scorer that looks at the question alone.

It says which of four tiers a question belongs to. Of a pair, the small model is sent what it calls SIMPLE, as in its
own default configuration, where SIMPLE is the small model's only tier. A second row lets the naive rule set a threshold
on its score. It knows neither model and promises nothing; the small model is asked only where it answers.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bench.certify_public import Floats
from bench.peers.cases import Bools, Questions
from bench.peers.decisions import Ask, Decisions, tuned
from bench.peers.environments import Package

PACKAGE = Package(name="litellm", version="1.109.1")
SHIPPED, TUNED = "LiteLLM's complexity router", "LiteLLM's score, naive threshold"


def decided(questions: list[Questions], calibration: Mapping[str, Bools], ask: Ask) -> dict[str, list[Decisions]]:
    texts = sorted({text for one in questions for text in one.texts if text is not None})
    told = ask({"texts": texts})["texts"]
    by_text: dict[str, tuple[str, float]] = {
        text: (tier, score) for text, (tier, score) in zip(texts, told, strict=True)
    }
    return {one.name: _of(one, calibration[one.name], by_text) for one in questions}


def _of(one: Questions, calibration: Bools, by_text: Mapping[str, tuple[str, float]]) -> list[Decisions]:
    found = [None if text is None else by_text[text] for text in one.texts]
    simple = np.array([told is not None and told[0] == "SIMPLE" for told in found])
    # The higher, the more complex.
    score: Floats = np.array([np.nan if told is None else -told[1] for told in found])
    kept = np.broadcast_to(simple, calibration.shape)
    return [
        Decisions(method=SHIPPED, kept=kept, kind="router", score=score),
        Decisions(method=TUNED, kept=tuned(one.case, score, calibration, "router"), kind="router", score=score),
    ]
