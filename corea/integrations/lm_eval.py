"""A cascade as a model of EleutherAI's lm-evaluation-harness.

``python -m corea.integrations.lm_eval run --model corea --model_args config=corea.toml --tasks gsm8k`` is the harness's
own command, with this model known to it: it has no other way to find one. Knows no task.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from corea.cascade import DEFAULT_CONCURRENCY, Cascade
from corea.errors import InputError
from corea.extras import extra
from corea.integrations.bridge import Bridge, conversation, facts, sampling_of
from corea.streams import bounded_map
from corea.tier import Sampling
from corea.types import Request

with extra("lm-eval"):
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import LM
    from lm_eval.api.registry import register_model

#: The harness's names for the most tokens of a reply, and settings that say nothing to a cascade.
_MAX_TOKENS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
_SILENT = ("until", "do_sample", *_MAX_TOKENS)


class Conversation(str):
    """Turns as JSON: the harness passes them on as the text of a question, and keeps them so in its caches."""


@register_model("corea")
class CoreaLM(LM):
    """``config``: a configuration file, by default the one that is found. ``num_concurrent``: questions at once.

    ``told`` is what COREA says of each answer so far (:func:`bridge.facts`), in the order in which they were written.
    """

    def __init__(
        self,
        config: str | Path | None = None,
        *,
        cascade: Cascade | None = None,
        num_concurrent: int = DEFAULT_CONCURRENCY,
        batch_size: object = None,
        max_batch_size: object = None,
        device: object = None,
    ) -> None:
        """The harness gives ``batch_size``, ``max_batch_size`` and ``device`` to all its models: no use here."""
        super().__init__()
        self.told: list[dict[str, Any]] = []
        self._num_concurrent = int(num_concurrent)
        self._bridge = Bridge.to(config, cascade)

    @property
    def tokenizer_name(self) -> str:
        # Its caches of rendered questions are told apart by it.
        return "corea"

    def close(self) -> None:
        """Close the cascade."""
        self._bridge.close()

    def get_model_info(self) -> dict[str, Any]:
        """What the harness writes beside the results, under ``config``."""
        return {
            "corea_fingerprint": self._bridge.cascade.fingerprint,
            "corea_answers": len(self.told),
            "corea_deferred": sum(one["deferred"] for one in self.told),
            "corea_cost_nano_usd": _total(one["cost_nano_usd"] for one in self.told),
            "corea_saved_nano_usd": _total(one["saved_nano_usd"] for one in self.told),
        }

    def apply_chat_template(self, chat_history: Sequence[Mapping[str, str]], add_generation_prompt: bool = True) -> str:
        """The turns themselves: each tier's own server knows its template."""
        if not add_generation_prompt:
            raise InputError("a cascade cannot go on with half an answer; leave gen_prefix out of the task")
        return Conversation(json.dumps([dict(turn) for turn in chat_history]))

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Answers, each cut off where its task says. Raises the first question's error; answers so far are cached."""
        return self._bridge.run(self._answers(requests))

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        _refuse("loglikelihood")

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        _refuse("loglikelihood_rolling")

    async def _answers(self, requests: Sequence[Instance]) -> list[str]:
        answers = [""] * len(requests)

        async def answer(index: int) -> None:
            context, settings = requests[index].args
            trace = await self._bridge.cascade.ask(_request(context), sampling=_sampling(settings))
            self.told.append(facts(trace))
            answers[index] = _cut(trace.text or "", settings.get("until"))
            self.cache_hook.add_partial("generate_until", requests[index].args, answers[index])

        async for _ in bounded_map(answer, range(len(requests)), concurrency=self._num_concurrent):
            pass
        return answers


def _request(context: str) -> Request:
    if isinstance(context, Conversation):
        return conversation((turn["role"], turn["content"]) for turn in json.loads(context))
    return Request.of(context)


def _sampling(settings: Mapping[str, Any]) -> Sampling:
    """What a task sets. The ends in ``until`` are not sent: they would cut off the line that says how sure a model is.

    Greedy is what a tier does unless it is configured otherwise, so a task that asks for it sets nothing.
    """
    chosen = {name: value for name, value in settings.items() if name not in _SILENT}
    chosen["max_tokens"] = next((settings[name] for name in _MAX_TOKENS if settings.get(name) is not None), None)
    if not settings.get("do_sample") and not chosen.get("temperature"):
        chosen["temperature"] = None
    return sampling_of(chosen)


def _total(amounts: Iterable[int | None]) -> int | None:
    """None where any is unknown."""
    known = list(amounts)
    return None if None in known else sum(amount for amount in known if amount is not None)


def _cut(text: str, until: str | Sequence[str] | None) -> str:
    ends = [until] if isinstance(until, str) else until or ()
    return text[: min((place for end in ends if end and (place := text.find(end)) >= 0), default=len(text))]


def _refuse(asked: str) -> NoReturn:
    raise InputError(
        f"a cascade writes answers and has no {asked}; choose tasks whose output_type is generate_until, such as "
        "gsm8k, minerva_math, ifeval or mmlu_generative, or score one tier's model by itself"
    )


if __name__ == "__main__":
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()
