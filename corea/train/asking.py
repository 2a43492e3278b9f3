"""Weights in this process, asked as any tier's model is: prompts that wait are generated together.

Slow beside llama.cpp or vLLM, but it needs neither, and it asks the very weights that were trained. Knows no questions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

from corea.errors import ContextOverflow
from corea.train.models import Base, ends_of
from corea.types import Prompt, Reply, Token, Usage

#: Prompts that arrive within so many seconds of one another are answered together.
GATHER_S = 0.02

_Waiting = tuple[Prompt, "asyncio.Future[Reply]"]


class TorchModel:
    """A :class:`corea.models.base.Model`. ``plain`` asks the weights without their adapter."""

    def __init__(self, name: str, load: Callable[[], Base], *, batch: int, plain: bool = False) -> None:
        self._name = name
        self._load = load
        self._batch = batch
        self._plain = plain
        self._waiting: list[_Waiting] = []
        self._worker: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        return self._name

    async def complete(self, prompt: Prompt, *, timeout_s: float | None = None) -> Reply:
        """``timeout_s`` is the caller's to keep: a batch that is being generated cannot be stopped."""
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting.append((prompt, future))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await future

    async def aclose(self) -> None:
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)

    async def _work(self) -> None:
        while self._waiting:
            await asyncio.sleep(GATHER_S)
            batch = self._taken()
            try:
                replies = await asyncio.to_thread(_generate, self._load(), [one for one, _ in batch], self._plain)
            except Exception as exc:  # noqa: BLE001 - told to everyone who waits for this batch
                for _, future in batch:
                    if not future.done():
                        future.set_exception(exc)
                continue
            for (_, future), reply in zip(batch, replies, strict=True):
                if not future.done():
                    future.set_result(Reply(**{**reply, "model": self._name}))

    def _taken(self) -> list[_Waiting]:
        """The first that waits, and those that are sampled as it is."""
        first = self._waiting[0][0]
        alike = [one for one in self._waiting if _sampling(one[0]) == _sampling(first)][: self._batch]
        self._waiting = [one for one in self._waiting if one not in alike]
        return alike


class _Heard:
    """A logits processor that changes nothing: it keeps each step's likeliest tokens, and how likely the chosen was."""

    def __init__(self, top: int) -> None:
        self._top = top
        self._last: Any = None
        self.chosen: list[Any] = []
        self.tops: list[tuple[Any, Any]] = []

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        import torch

        if self._last is not None:
            self.take(input_ids[:, -1])
        self._last = torch.log_softmax(scores.float(), dim=-1)
        values, ids = self._last.topk(self._top, dim=-1)
        self.tops.append((values.cpu(), ids.cpu()))
        return scores

    def take(self, ids: Any) -> None:
        """The tokens that were chosen last, (B,)."""
        self.chosen.append(self._last.gather(1, ids[:, None].to(self._last.device))[:, 0].cpu())


def _sampling(prompt: Prompt) -> tuple[int, float, int]:
    return prompt.max_tokens, prompt.temperature, prompt.top_logprobs


def _generate(base: Base, prompts: Sequence[Prompt], plain: bool) -> list[dict[str, Any]]:
    """The fields of each prompt's reply. All prompts are sampled alike."""
    import torch
    from transformers import LogitsProcessorList

    tokenizer, first = base.tokenizer, prompts[0]
    model = base.model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    asked = [
        tokenizer.apply_chat_template(
            [{"role": turn.role, "content": turn.content} for turn in prompt.messages],
            add_generation_prompt=True,
            tokenize=False,
        )
        for prompt in prompts
    ]
    encoded = tokenizer(asked, return_tensors="pt", padding=True, add_special_tokens=False).to(model.device)
    width = encoded["input_ids"].shape[1]
    if width + first.max_tokens > getattr(model.config, "max_position_embeddings", 1 << 30):
        raise ContextOverflow(f"a prompt of {width} tokens leaves no room for the reply; leave that question out")
    heard = _Heard(first.top_logprobs) if first.top_logprobs else None
    how = {"do_sample": True, "temperature": first.temperature, "top_k": 0, "top_p": 1.0}
    torch.manual_seed(first.seed or 0)
    with torch.inference_mode(), model.disable_adapter() if plain else nullcontext():
        ids = model.generate(
            **encoded,
            **(how if first.temperature > 0 else {"do_sample": False}),
            max_new_tokens=first.max_tokens,
            pad_token_id=tokenizer.pad_token_id,
            logits_processor=LogitsProcessorList([heard] if heard else []),
        )
    if heard is not None:
        heard.take(ids[:, -1])
    ends = ends_of(base)
    return [
        _reply(base, row[width:].tolist(), ends, int(mask.sum()), heard, at)
        for at, (row, mask) in enumerate(zip(ids, encoded["attention_mask"], strict=True))
    ]


def _reply(base: Base, ids: list[int], ends: set[int], asked: int, heard: _Heard | None, at: int) -> dict[str, Any]:
    decode = base.tokenizer.decode
    length = next((index for index, one in enumerate(ids) if one in ends), len(ids))
    tokens = None
    if heard is not None:
        tokens = tuple(
            Token(
                text=decode(ids[step : step + 1]),
                logprob=float(heard.chosen[step][at]),
                top=tuple(
                    (decode([int(one)]), float(value))
                    for value, one in zip(heard.tops[step][0][at], heard.tops[step][1][at], strict=True)
                ),
            )
            for step in range(length)
        )
    return {
        "text": decode(ids[:length], skip_special_tokens=True),
        "finish_reason": "stop" if length < len(ids) else "length",
        "usage": Usage(prompt_tokens=asked, completion_tokens=min(length + 1, len(ids))),
        "tokens": tokens,
    }
