"""A cascade of scripted models: all of COREA, none of the models' time."""

from __future__ import annotations

from corea.cascade import Cascade, Recorder
from corea.confidence import Expected
from corea.models.scripted import ScriptedModel, scripted_answer
from corea.prices import FixedPrice
from corea.tier import Tier

REASONING = "First we add the apples, then we take away those that were eaten, and what is left is the answer. " * 4
SURE = scripted_answer("42", digit_distribution={9: 0.7, 8: 0.2, 1: 0.1}, reasoning=REASONING)
UNSURE = scripted_answer("41", digit_distribution={1: 0.6, 2: 0.3, 8: 0.1}, reasoning=REASONING)


def cascade(ledger: Recorder | None = None) -> Cascade:
    """Two tiers; every second question is deferred. Confidence is read from log-probabilities of an 80-word reply."""
    small = ScriptedModel("small", replies=lambda prompt, index: SURE if index % 2 else UNSURE)
    large = ScriptedModel("large", replies=[scripted_answer("42", reasoning=REASONING)])
    tiers = (
        Tier(name="small", model=small, estimator=Expected(), threshold=0.5, price=FixedPrice.per_million(0.1, 0.2)),
        Tier(name="large", model=large, price=FixedPrice.per_million(1, 2)),
    )
    return Cascade(tiers, ledger=ledger, fingerprint="bench")
