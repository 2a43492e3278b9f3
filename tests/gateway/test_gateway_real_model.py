"""The gateway in front of a real embedded model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import openai
import pytest

from corea.confidence import Logprob
from corea.models.embedded import EmbeddedModel, EngineSettings
from corea.prices import FixedPrice
from corea.tier import Tier
from gateway.running import serving

MESSAGES: Any = [{"role": "system", "content": "Answer briefly."}, {"role": "user", "content": "What is 2+3?"}]
PRICE = FixedPrice.per_million(1.0, 1.0)


@pytest.mark.real_model
def test_a_real_model_is_kept_deferred_and_heard_live(smollm: Path) -> None:
    settings = EngineSettings(path=smollm, context_tokens=512, slots=2)
    small, large = EmbeddedModel("smollm2-135m", settings), EmbeddedModel("smollm2-135m", settings)
    tiers = (
        Tier(name="small", model=small, estimator=Logprob(), threshold=0.0, price=PRICE, max_tokens=256),
        Tier(name="large", model=large, price=PRICE, max_tokens=24),
    )
    with serving(*tiers, profiles={"never": {"threshold": 1.0}}) as running:
        client = openai.OpenAI(base_url=f"{running.url}/v1", api_key="x", max_retries=0)
        whole = client.chat.completions.create(model="corea", messages=MESSAGES)
        assert running.trace.tier == "small"
        assert whole.usage is not None
        assert whole.usage.completion_tokens > 0
        chunks = list(
            client.chat.completions.create(model="corea:never", messages=MESSAGES, stream=True, max_tokens=12)
        )
        pieces = [chunk.choices[0].delta.content or "" for chunk in chunks]
        trace = running.ledger.traces[-1]
        assert "".join(pieces) == trace.text
        assert sum(bool(piece) for piece in pieces) > 3
        assert trace.tier == "large"
        assert trace.attempts[1].usage is not None
        assert trace.attempts[1].usage.completion_tokens <= 12
        assert trace.cost_nano_usd is not None
