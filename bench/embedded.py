"""Tokens per second through the embedded tier, against the same engine driven directly, at equal concurrency.

SmolLM2-135M: the smaller the model, the more our own part of the time shows.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from bench.measure import Figure, paired
from corea.catalogue import CATALOGUE
from corea.models import embedded
from corea.models.download import pull
from corea.models.embedded import EmbeddedModel, EngineSettings
from corea.types import Message, Prompt

CONCURRENCY = 4
REQUESTS = 16
MAX_TOKENS = 96
ROUNDS = 5
QUESTIONS = [f"Tell me a story about the number {index}." for index in range(REQUESTS)]


def measure() -> list[Figure]:
    with asyncio.Runner() as runner:
        path = runner.run(pull(CATALOGUE["smollm2-135m"]))
        model = EmbeddedModel("smollm2", EngineSettings(path=path, context_tokens=512, slots=CONCURRENCY))
        runner.run(model.load())
        (engine,) = embedded._engines.values()
        tier, direct, ratio = paired(
            lambda: runner.run(_through_tier(model)), lambda: _directly(engine.server), rounds=ROUNDS
        )
        runner.run(model.aclose())
    detail = f"{tier:.0f} and {direct:.0f} tokens/s"
    return [
        Figure(
            name="tokens/s through the embedded tier ÷ engine driven directly",
            value=ratio,
            limit=0.9,
            at_least=True,
            detail=detail,
        )
    ]


async def _through_tier(model: EmbeddedModel) -> float:
    slots = asyncio.Semaphore(CONCURRENCY)

    async def ask(question: str) -> int:
        prompt = Prompt(messages=(Message(role="user", content=question),), max_tokens=MAX_TOKENS, top_logprobs=1)
        async with slots:
            reply = await model.complete(prompt)
        assert reply.usage is not None
        return reply.usage.completion_tokens

    started = time.perf_counter()
    tokens = sum(await asyncio.gather(*map(ask, QUESTIONS)))
    return tokens / (time.perf_counter() - started)


def _directly(server: Any) -> float:
    def ask(question: str) -> int:
        body = {
            "messages": [{"role": "user", "content": question}],
            "max_tokens": MAX_TOKENS,
            "temperature": 0.0,
            "logprobs": True,
            "top_logprobs": 1,
        }
        return int(server.handle_chat_completions(body)["usage"]["completion_tokens"])

    started = time.perf_counter()
    with ThreadPoolExecutor(CONCURRENCY) as threads:
        tokens = sum(threads.map(ask, QUESTIONS))
    return tokens / (time.perf_counter() - started)
