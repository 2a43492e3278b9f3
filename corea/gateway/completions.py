"""The old completions API, in which a text is answered by a text. Knows only how it is read and written."""

from __future__ import annotations

from typing import Any

import orjson

from corea.gateway.errors import bad_request
from corea.gateway.reading import Body, whole_number
from corea.gateway.shapes import DONE, event, finish_reason, usage
from corea.gateway_config import GatewayConfig
from corea.types import Message, Trace

#: What sets a request apart from a plain question, unless its value says nothing.
_ODD = ("suffix", "echo", "logit_bias")


def read_prompt(body: Body, settings: GatewayConfig) -> tuple[tuple[Message, ...], str | None]:
    """The question, and the parameter for which a request must go to a tier as it is."""
    prompt = body.get("prompt")
    texts = [prompt] if isinstance(prompt, str) else prompt
    if not isinstance(texts, list) or not texts:
        raise bad_request("prompt must be a text", "prompt")
    if len(texts) > settings.max_messages:
        raise bad_request(f"at most {settings.max_messages} prompts are taken, not {len(texts)}", "prompt")
    counts = {name: whole_number(body, name, most=settings.max_choices) for name in ("best_of", "n")}
    odd = next((name for name in _ODD if body.get(name) not in (None, False, {}, "")), None)
    # Not even 0 says nothing: it asks for the probabilities of the words that were said.
    odd = odd or ("logprobs" if body.get("logprobs") is not None and body["logprobs"] is not False else None)
    odd = odd or next((name for name, count in counts.items() if count not in (None, 1)), None)
    if len(texts) != 1 or not isinstance(texts[0], str):
        return (), "prompt"
    if not texts[0].strip():
        raise bad_request("prompt is empty; write a question", "prompt")
    return (Message(role="user", content=texts[0]),), odd


class TextWriter:
    """The events of one streamed text completion."""

    def __init__(self, *, id: str, created_s: float, model: str, include_usage: bool) -> None:
        self._head = {"id": f"cmpl-{id}", "object": "text_completion", "created": int(created_s), "model": model}
        before = orjson.dumps(self._head)[:-1]
        self._before = b"data: " + before + b',"choices":[{"index":0,"logprobs":null,"finish_reason":null,"text":'
        self._include_usage = include_usage

    def first(self) -> bytes:
        return b""

    def text(self, text: str) -> bytes:
        return self._before + orjson.dumps(text) + b"}]}\n\n"

    def last(self, trace: Trace, *, corea: dict[str, Any] | None) -> bytes:
        attempt = trace.attempt
        reason = "stop" if attempt is None else finish_reason(attempt)
        choice = {"index": 0, "text": "", "logprobs": None, "finish_reason": reason}
        said = {} if corea is None else {"corea": corea}
        end = event({**self._head, "choices": [choice], **said})
        counted = attempt and usage(attempt.usage)
        return end + (event({**self._head, "choices": [], "usage": counted}) if self._include_usage else b"") + DONE
