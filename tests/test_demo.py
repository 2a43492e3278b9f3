"""The demo's columns: the cascade, the last tier alone, and the cascade as it would be untrained."""

from __future__ import annotations

import asyncio
from typing import Any

from corea import Cascade
from corea.batch.rows import Question
from corea.confidence import Verbalized
from corea.config import parse
from corea.demo import Step, Tally, run, untrained
from corea.models.scripted import ScriptedModel, scripted_answer
from corea.prices import FixedPrice
from corea.tier import Tier

QUESTIONS = [Question(id=f"q{i}", question="What is 6 × 7?", gold="42", kind="number") for i in range(3)]
LARGE = '[[tiers]]\nname = "large"\nkind = "embedded"\nmodel = "qwen2.5-coder-1.5b"\n'


def tier(name: str, answer: str, confidence: float, price: int, **settings: Any) -> Tier:
    return Tier(
        name=name,
        model=ScriptedModel(name, replies=[scripted_answer(answer, digit=int(10 * confidence))]),
        price=FixedPrice.per_million(price, price),
        estimator=Verbalized(),
        **settings,
    )


def tally(*, plain_confidence: float | None) -> tuple[Tally, list[Step]]:
    async def steps() -> list[Step]:
        small, large = tier("small", "41", 0.9, 1, threshold=0.5), tier("large", "42", 0.9, 10)
        plain = None if plain_confidence is None else tier("small", "40", plain_confidence, 1, threshold=0.5)
        async with Cascade([small, large]) as cascade:
            return [step async for step in run(cascade, QUESTIONS, plain=plain)]

    made = asyncio.run(steps())
    return Tally.of(made), made


def test_the_last_tier_answers_what_was_kept_too_and_each_column_is_graded() -> None:
    found, _ = tally(plain_confidence=None)
    assert (found.cascade.right, found.cascade.deferred) == (0, 0)
    assert (found.alone.right, found.alone.deferred) == (3, 0)
    assert found.untrained is None
    saving = found.saving(found.cascade)
    assert saving is not None
    assert 0.8 < saving < 1


def test_untrained_a_deferred_question_costs_both_and_has_the_large_models_answer() -> None:
    found, steps = tally(plain_confidence=0.2)
    assert found.untrained is not None
    assert (found.untrained.right, found.untrained.deferred) == (3, 3)
    plain = sum(step.untrained.cost_nano_usd or 0 for step in steps if step.untrained)
    assert found.untrained.cost_nano_usd == plain + (found.alone.cost_nano_usd or 0)
    saving = found.saving(found.untrained)
    assert saving is not None
    assert saving < 0


def test_untrained_a_kept_question_has_the_untrained_models_answer() -> None:
    found, _ = tally(plain_confidence=0.9)
    assert found.untrained is not None
    assert (found.untrained.right, found.untrained.deferred) == (0, 0)


def test_only_a_first_tier_with_adapters_has_an_untrained_self() -> None:
    small = '[[tiers]]\nname = "small"\nkind = "embedded"\nmodel = "qwen2.5-coder-0.5b"\nthreshold = 0.7\n'
    trained = small + 'adapters = [{ path = "a.gguf" }]\nconfidence = { estimator = "expected" }\n'
    assert untrained(parse(small + LARGE, source="t")) is None
    plain = untrained(parse(trained + LARGE, source="t"))
    assert plain is not None
    first = plain.tiers[0]
    assert first.kind == "embedded"
    assert first.adapters == ()
    assert first.confidence.estimator == "logprob"
