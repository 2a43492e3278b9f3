"""A cascade of two scripted models: the small one knows sums of small numbers, and knows that it knows no others."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from corea import Cascade
from corea.confidence import Verbalized
from corea.models.scripted import ScriptedModel, Written, scripted_answer, scripted_reply
from corea.prices import FixedPrice
from corea.tier import Tier
from corea.types import Prompt, Trace

EASY, HARD = "What is 2 + 3?", "What is 20 + 30?"


@dataclass
class Kept:
    """A ledger in memory."""

    traces: list[Trace] = field(default_factory=list)
    closed: bool = False

    async def write(self, trace: Trace) -> None:
        self.traces.append(trace)

    async def aclose(self) -> None:
        self.closed = True


def total(prompt: Prompt) -> int:
    """The sum that the last turn asks for."""
    return sum(int(number) for number in re.findall(r"\d+", prompt.messages[-1].content))


def cascade(kept: Kept | None = None, *, on_large: str = "Answer: {total}", on_small: str = "{total}") -> Cascade:
    """``on_small`` is the small model's answer, ``on_large`` the large one's whole reply."""

    def small(prompt: Prompt, index: int) -> Written:
        value = total(prompt)
        answer = on_small.format(total=value)
        return Written(reply=scripted_answer(answer, digit=9 if value < 10 else 1))

    def large(prompt: Prompt, index: int) -> Written:
        return Written(reply=scripted_reply(on_large.format(total=total(prompt)), model="large-model"))

    tiers = (
        Tier(
            name="small",
            model=ScriptedModel("small-model", replies=small, record=True),
            estimator=Verbalized(),
            threshold=0.5,
            price=FixedPrice.per_million(1.0, 2.0),
        ),
        Tier(
            name="large",
            model=ScriptedModel("large-model", replies=large, record=True),
            price=FixedPrice.per_million(10.0, 20.0),
        ),
    )
    return Cascade(tiers, ledger=kept, fingerprint="f00d")


def prompts(made: Cascade, tier: int) -> list[Prompt]:
    """What the tier was asked so far."""
    model = made.tiers[tier].model
    assert isinstance(model, ScriptedModel)
    return model.prompts
