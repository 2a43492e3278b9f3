"""Chat-completions JSON ↔ our types, shared by every model that speaks it.

Knows no HTTP client: bodies, statuses and headers come in, values or errors go out. Every message is one line and
never holds the key, even where the upstream echoes it.
"""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from corea.errors import ContextOverflow, ModelError, RateLimited, Unauthorized, UpstreamGarbage, UpstreamStatus
from corea.types import Prompt, Reply, Token, Usage

_EXCERPT_CHARS = 200
_OVERFLOW_CODES = {"exceed_context_size_error", "context_length_exceeded"}
_OVERFLOW_WORDS = re.compile(r"maximum context length|context[ _]size|context window|prompt is too long", re.IGNORECASE)


def request_body(prompt: Prompt, model: str, *, stream: bool = False) -> dict[str, Any]:
    """The JSON body that asks ``model`` to complete ``prompt``; a stream is to end with its usage."""
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": message.role, "content": message.content} for message in prompt.messages],
        "max_tokens": prompt.max_tokens,
        "temperature": prompt.temperature,
    }
    if prompt.seed is not None:
        body["seed"] = prompt.seed
    if prompt.top_logprobs:
        body |= {"logprobs": True, "top_logprobs": prompt.top_logprobs}
    body |= prompt.sampling
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return body


def payload_of(body: bytes, model: str, *, secret: str | None = None) -> object:
    """The JSON value in a body. Raises :class:`UpstreamGarbage` where there is none."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        what = _page(body.decode(errors="replace")) or ("cut or broken JSON" if body.strip() else "nothing")
        message = f"{model}: the endpoint sent {excerpt(what, secret)}, not a chat completion; check base_url"
        # The cause would hold the whole body.
        raise UpstreamGarbage(message) from None


def reply_of(payload: object, model: str, *, secret: str | None = None) -> Reply:
    """The first choice of a chat completion.

    Content null is an empty text; usage that is absent or empty is None; log-probabilities that are absent are None,
    and those that are not finite are dropped. Raises :class:`UpstreamGarbage` on anything else that is not as it
    should be.
    """
    if isinstance(payload, dict) and payload.get("error") and "choices" not in payload:
        raise error_in(payload, model, secret=secret)
    try:
        completion = _Completion.model_validate(payload)
    except ValidationError as exc:
        raise _not_a_completion(exc, model) from None
    choice = completion.choices[0]
    return Reply(
        text=choice.message.content or "",
        finish_reason=choice.finish_reason or "unknown",
        model=completion.model or model,
        usage=_usage(completion.usage),
        tokens=_tokens(choice.logprobs),
    )


def usage_of(payload: object, model: str) -> Usage | None:
    """Usage as a server writes it; None where it did not count. Raises :class:`UpstreamGarbage`."""
    try:
        return _usage(None if payload is None else _UsageShape.model_validate(payload))
    except ValidationError as exc:
        raise _not_a_completion(exc, model, "usage.") from None


def tokens_of(payload: object, model: str) -> tuple[Token, ...]:
    """Tokens of a choice's ``logprobs``, those that say something. Raises :class:`UpstreamGarbage`."""
    try:
        return _tokens(_Logprobs.model_validate(payload)) or ()
    except ValidationError as exc:
        raise _not_a_completion(exc, model, "logprobs.") from None


def error_in(payload: Mapping[str, Any], model: str, *, secret: str | None = None) -> ModelError:
    """The error that an answer of status 200, or an event of a stream, holds instead of a completion."""
    error = payload.get("error")
    complaint = excerpt(_message(payload), secret)
    if _is_overflow(400, error if isinstance(error, dict) else {}, complaint):
        return ContextOverflow(f"{model}: the question does not fit the model's context: {complaint}")
    return UpstreamGarbage(f"{model}: the endpoint sent an error as if it were an answer: {complaint}")


def error_of(
    status: int,
    headers: Mapping[str, str],
    body_text: str,
    model: str,
    *,
    secret: str | None = None,
    api_key_env: str | None = None,
) -> ModelError:
    """The error that an HTTP answer other than 2xx stands for. ``secret`` is scrubbed from whatever it says."""
    error = _error_object(body_text)
    complaint = excerpt(_message(error) if error is not None else _page(body_text) or body_text, secret)
    said = f": {complaint}" if complaint else ""
    if _is_overflow(status, error or {}, complaint):
        return ContextOverflow(f"{model}: the question does not fit the model's context{said}")
    wait_s = retry_after_s(headers)
    if status == 429:
        wait = "" if wait_s is None else f" (it asks to wait {wait_s:g} s)"
        return RateLimited(f"{model}: HTTP 429, too many requests{wait}{said}", status=status, retry_after_s=wait_s)
    if status in (401, 403):
        return Unauthorized(f"{model}: HTTP {status}, {_key_advice(secret, api_key_env)}{said}", status=status)
    if status == 404:
        return UpstreamStatus(f"{model}: HTTP 404, check base_url and the model's name{said}", status=status)
    if 300 <= status < 400:
        target = excerpt(_lower(headers).get("location", "elsewhere"), secret)
        return UpstreamStatus(f"{model}: HTTP {status}, base_url redirects to {target}", status=status)
    return UpstreamStatus(f"{model}: HTTP {status}{said}", status=status, retry_after_s=wait_s)


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, from ``retry-after-ms`` or ``Retry-After``; None where neither says so intelligibly.

    A date is read against the answer's own ``Date``, so it does not matter how wrong our clock is.
    """
    lower = _lower(headers)
    if (milliseconds := _count(lower.get("retry-after-ms", ""))) is not None:
        return milliseconds / 1000
    after = lower.get("retry-after", "")
    if (seconds := _count(after)) is not None:
        return seconds
    try:
        until = parsedate_to_datetime(after).timestamp() - parsedate_to_datetime(lower.get("date", "")).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None
    return max(until, 0.0)


def excerpt(text: str, secret: str | None = None) -> str:
    """``text`` as one printable line of at most 200 characters, without the secret."""
    # The secret goes first: cutting could leave half of it. A dummy key of a letter or two is none.
    text = text.replace(secret, "[key]") if secret and len(secret) > 3 else text
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 20 * _EXCERPT_CHARS]).split())
    return line if len(line) <= _EXCERPT_CHARS else line[: _EXCERPT_CHARS - 1] + "…"


def whole_characters(text: str) -> str:
    """The text with a question mark for each half of a surrogate pair."""
    return text if text.isascii() else text.encode(errors="replace").decode()


class _Shape(BaseModel):
    """Only the fields we read; whatever else a server sends is its own business."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)


# JSON can spell half a surrogate pair, which no database and no socket takes.
_Text = Annotated[str, AfterValidator(whole_characters)]

# More than a billion tokens in one call is no count, and would not fit the ledger's integers as a cost.
_Count = Annotated[int, Field(ge=0, le=10**9)]


class _Alternative(_Shape):
    token: _Text
    logprob: float | None = None


class _SampledToken(_Alternative):
    top_logprobs: list[_Alternative] | None = None


class _Logprobs(_Shape):
    content: list[_SampledToken] | None = None


class _Message(_Shape):
    content: _Text | None = None


class _Choice(_Shape):
    message: _Message
    finish_reason: _Text | None = None
    logprobs: _Logprobs | None = None


class _PromptDetails(_Shape):
    cached_tokens: _Count | None = None


class _CompletionDetails(_Shape):
    reasoning_tokens: _Count | None = None


class _UsageShape(_Shape):
    prompt_tokens: _Count | None = None
    completion_tokens: _Count | None = None
    total_tokens: _Count | None = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None


class _Completion(_Shape):
    choices: Annotated[list[_Choice], Field(min_length=1)]
    model: _Text | None = None
    usage: _UsageShape | None = None


def _not_a_completion(exc: ValidationError, model: str, prefix: str = "") -> UpstreamGarbage:
    first = exc.errors(include_url=False, include_context=False, include_input=False)[0]
    where = prefix + ".".join(str(part) for part in first["loc"]) or "the whole"
    return UpstreamGarbage(f"{model}: not a chat completion: {where}: {first['msg']}")


def _usage(usage: _UsageShape | None) -> Usage | None:
    if usage is None or usage.prompt_tokens is None:
        return None
    prompt, completion = usage.prompt_tokens, usage.completion_tokens
    if completion is None:
        # Embeddings are counted so: of the total, nothing is left for a completion.
        if usage.total_tokens != prompt:
            return None
        completion = 0
    cached = (usage.prompt_tokens_details and usage.prompt_tokens_details.cached_tokens) or 0
    reasoning = (usage.completion_tokens_details and usage.completion_tokens_details.reasoning_tokens) or 0
    # xAI counts the reasoning beside the completion; everyone else inside it. Only the total tells.
    if reasoning and usage.total_tokens == prompt + completion + reasoning:
        completion += reasoning
    return Usage(
        prompt_tokens=prompt,
        cached_prompt_tokens=min(cached, prompt),
        completion_tokens=completion,
        reasoning_tokens=min(reasoning, completion),
    )


def _tokens(logprobs: _Logprobs | None) -> tuple[Token, ...] | None:
    if logprobs is None or logprobs.content is None:
        return None
    return tuple(
        Token(text=token.token, logprob=logprob, top=_top(token.top_logprobs or ()))
        for token in logprobs.content
        if (logprob := _finite(token.logprob)) is not None
    )


def _top(alternatives: list[_Alternative] | tuple[()]) -> tuple[tuple[str, float], ...]:
    return tuple(
        (alternative.token, logprob)
        for alternative in alternatives
        if (logprob := _finite(alternative.logprob)) is not None
    )


def _finite(logprob: float | None) -> float | None:
    """A log-probability, its rounding above 0 taken off; None where it says nothing."""
    return None if logprob is None or not math.isfinite(logprob) else min(logprob, 0.0)


def _error_object(body_text: str) -> dict[str, Any] | None:
    """The object that describes an error: under ``error``, at the top, or first in a list; None if there is none."""
    try:
        payload = json.loads(body_text)
    except (ValueError, RecursionError):
        return None
    if isinstance(payload, list) and payload:
        payload = payload[0]
    if not isinstance(payload, dict):
        return None
    inner = payload.get("error")
    return inner if isinstance(inner, dict) else payload


def _message(error: Mapping[str, Any]) -> str:
    """What an error object says, in any of the usual dialects; empty where it says nothing."""
    for key in ("message", "error", "detail", "msg"):
        value = error.get(key)
        # FastAPI's detail is a list of objects, each with its own msg.
        value = value[0] if isinstance(value, list) and value else value
        value = (value.get("message") or value.get("msg")) if isinstance(value, dict) else value
        if isinstance(value, str) and value:
            return value
    return ""


def _is_overflow(status: int, error: Mapping[str, Any], complaint: str) -> bool:
    # llama.cpp says it in the type, OpenAI in the code, vLLM only in the words of a 400.
    if not _OVERFLOW_CODES.isdisjoint(str(error.get(key)) for key in ("type", "code")):
        return True
    return status in (400, 413, 422) and _OVERFLOW_WORDS.search(complaint) is not None


def _key_advice(secret: str | None, api_key_env: str | None) -> str:
    if not secret:
        return f"no key was sent; set {api_key_env or 'api_key_env'}"
    return f"the key was not accepted; check {api_key_env or 'the API key'}"


def _page(text: str) -> str | None:
    """An HTML page as its title; None for a text that is not HTML."""
    if not text.lstrip("\ufeff \t\r\n").startswith("<"):
        return None
    match = re.search(r"<title[^>]{0,200}>([^<]{1,2000})", text[:100_000], re.IGNORECASE)
    return f'an HTML page titled "{html.unescape(match[1]).strip()}"' if match else "an HTML page"


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _count(text: str) -> float | None:
    """A finite number that is not negative; None for anything else."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None
