"""Bytes → a request the cascade understands, or the reason why it does not. Knows no model and answers nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from corea.gateway.errors import bad_request, unsupported
from corea.gateway_config import GatewayConfig
from corea.tier import AS_CONFIGURED, Sampling
from corea.types import Message, Role

Body = dict[str, Any]

_ROLES: Mapping[str, Role] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
#: What says nothing about the answer: taken, and not handed on.
_IGNORED = frozenset(
    {"store", "metadata", "service_tier", "safety_identifier", "prompt_cache_key", "parallel_tool_calls"}
)
_SAMPLING = frozenset(
    {"temperature", "max_tokens", "max_completion_tokens", "stop", "seed", "top_p"}
    | {"presence_penalty", "frequency_penalty", "user"}
)
_READ = frozenset({"model", "messages", "stream", "stream_options", "n"}) | _SAMPLING | _IGNORED
_ADDRESSES = ("base_url", "api_base", "api_key", "api_version", "user_config", "extra_headers")
_WORD = re.compile(r"[a-z][a-z0-9_]{0,31}")
_RANGES: Mapping[str, tuple[float, float]] = {
    "temperature": (0, 2),
    "top_p": (0, 1),
    "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Chat:
    """A chat request. ``relay``: the parameter for which it must go to a tier as it is; None for plain text."""

    model: str
    messages: tuple[Message, ...]
    sampling: Sampling
    stream: bool
    include_usage: bool
    relay: str | None


def read_json(raw: bytes, settings: GatewayConfig) -> Body:
    """The JSON object of a body. Raises :class:`ApiError` for what is not one, and for one that is too deep."""
    try:
        body = orjson.loads(raw)
    except ValueError as exc:
        raise bad_request(f"the body is not valid JSON: {exc}", code="invalid_json") from None
    if not isinstance(body, dict):
        raise bad_request("the body must be a JSON object", code="invalid_json")
    if is_deeper(body, settings.max_depth):
        raise bad_request(f"the body is nested deeper than {settings.max_depth} levels", code="too_deep")
    _check_addresses(body)
    return body


def _check_addresses(body: Body) -> None:
    """Some servers let a body say where it is to be answered, and with which key. No client of ours chooses that."""
    name = next((name for name in _ADDRESSES if body.get(name) is not None), None)
    if name is not None:
        raise unsupported(name, f"{name} cannot be chosen by a request; model names one of the tiers configured here")


def read_chat(body: Body, settings: GatewayConfig) -> Chat:
    """Checks everything that we act on. Raises :class:`ApiError` that names the parameter."""
    stream = flag(body, "stream")
    include_usage = read_include_usage(body, stream)
    messages, content = _messages(body.get("messages"), settings)
    count = whole_number(body, "n", most=settings.max_choices)
    tools = body.get("tools") or body.get("functions") or []
    if not isinstance(tools, list):
        raise bad_request("tools must be a list", "tools")
    if len(tools) > settings.max_tools:
        raise bad_request(f"at most {settings.max_tools} tools are taken, not {len(tools)}", "tools")
    return Chat(
        model=text(body, "model"),
        messages=messages,
        sampling=read_sampling(body),
        stream=stream,
        include_usage=include_usage,
        relay=_why_relayed(body, content, many=(count or 1) > 1),
    )


def read_sampling(body: Body, *, length: str = "max_tokens") -> Sampling:
    """How the client wants the answer sampled; ``AS_CONFIGURED`` where it says nothing."""
    numbers = {name: _number(body, name, *_RANGES[name]) for name in _RANGES}
    limit = whole_number(body, "max_completion_tokens") if length == "max_tokens" else None
    sampling = Sampling(
        max_tokens=limit if limit is not None else whole_number(body, length),
        temperature=numbers["temperature"],
        top_p=numbers["top_p"],
        presence_penalty=numbers["presence_penalty"],
        frequency_penalty=numbers["frequency_penalty"],
        seed=_seed(body),
        stop=_stop(body.get("stop")),
        user=None if body.get("user") is None else text(body, "user"),
    )
    return AS_CONFIGURED if sampling == AS_CONFIGURED else sampling


def text(body: Body, name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value:
        raise bad_request(f"{name} must be a text" + (", and is missing" if value is None else ""), name)
    return value


def flag(body: Body, name: str, param: str | None = None) -> bool:
    value = body.get(name)
    if value is None or isinstance(value, bool):
        return bool(value)
    raise bad_request(f"{param or name} must be true or false", param or name)


def _why_relayed(body: Body, content: str | None, *, many: bool) -> str | None:
    """The first thing in a request that the cascade cannot judge, by its parameter's name."""
    if body.get("tools") or body.get("functions") or body.get("tool_choice") not in (None, "auto", "none"):
        return "tools"
    form = body.get("response_format")
    if form is not None and not (isinstance(form, dict) and form.get("type") == "text"):
        return "response_format"
    if many:
        return "n"
    if body.get("logprobs") or body.get("top_logprobs"):
        return "logprobs"
    if content is not None:
        return content
    dull = {"response_format", "logprobs", "top_logprobs", "tools", "functions", "tool_choice", "function_call"}
    unknown = (name for name in body if name not in _READ and name not in dull and not _says_nothing(body[name]))
    name = next(unknown, None)
    # It goes into a header and into the ledger, so it is a word, or just "other".
    return name if name is None or _WORD.fullmatch(name) else "other"


def _says_nothing(value: object) -> bool:
    return value is None or value in ({}, [], ["text"], False)


def _messages(value: object, settings: GatewayConfig) -> tuple[tuple[Message, ...], str | None]:
    """The turns as text, and what in them is not text: ``tools`` or ``content``, or None."""
    if not isinstance(value, list) or not value:
        raise bad_request("messages must be a list with at least one message", "messages")
    if len(value) > settings.max_messages:
        raise bad_request(f"at most {settings.max_messages} messages are taken, not {len(value)}", "messages")
    messages, odd = [], None
    for index, turn in enumerate(value):
        where = f"messages[{index}]"
        if not isinstance(turn, dict):
            raise bad_request(f"{where} must be an object with role and content", where)
        role = turn.get("role")
        if not isinstance(role, str) or role not in (*_ROLES, "tool", "function"):
            raise bad_request(f"{where}.role must be system, developer, user, assistant or tool", f"{where}.role")
        said, plain = _content(turn.get("content"), f"{where}.content", calls=bool(turn.get("tool_calls")))
        odd = odd or ("tools" if role not in _ROLES or turn.get("tool_calls") else None if plain else "content")
        messages.append(Message(role=_ROLES.get(role, "user"), content=said))
    return tuple(messages), odd


def _content(value: object, where: str, *, calls: bool) -> tuple[str, bool]:
    """A turn's text, and whether that is all there is to it."""
    if isinstance(value, str):
        return value, True
    if value is None and calls:
        return "", True
    if not isinstance(value, list) or not value:
        raise bad_request(f"{where} must be a text or a list of parts", where)
    texts, plain = [], True
    for index, part in enumerate(value):
        if not isinstance(part, dict) or not isinstance(part.get("type"), str):
            raise bad_request(f"{where}[{index}] must be an object with a type", f"{where}[{index}]")
        if part["type"] in ("text", "input_text", "output_text"):
            if not isinstance(part.get("text"), str):
                raise bad_request(f"{where}[{index}].text must be a text", f"{where}[{index}].text")
            texts.append(part["text"])
        else:
            plain = False
    return "\n".join(texts), plain


def read_include_usage(body: Body, stream: bool) -> bool:
    """Whether a stream is to end with its usage."""
    options = body.get("stream_options")
    if options is None:
        return False
    if not isinstance(options, dict):
        raise bad_request("stream_options must be an object", "stream_options")
    if not stream:
        raise bad_request("stream_options go with stream: true", "stream_options")
    return flag(options, "include_usage", "stream_options.include_usage")


def _number(body: Body, name: str, least: float, most: float) -> float | None:
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise bad_request(f"{name} must be a number from {least:g} to {most:g}", name)
    return float(value)


def whole_number(body: Body, name: str, *, most: int = 10**7) -> int | None:
    """A number of at least 1; None where the body has none."""
    value = _integer(body.get(name))
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise bad_request(f"{name} must be a whole number from 1 to {most}", name)
    return value


def _integer(value: object) -> object:
    """To JSON, 5.0 is as whole a number as 5."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _seed(body: Body) -> int | None:
    value = _integer(body.get("seed"))
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not -(2**63) <= value < 2**63:
        raise bad_request("seed must be a whole number", "seed")
    return value


def _stop(value: object) -> tuple[str, ...]:
    stops = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or len(stops) > 4 or not all(isinstance(stop, str) and stop for stop in stops):
        raise bad_request("stop must be a text, or a list of up to four", "stop")
    return tuple(stops)


def is_deeper(value: object, most: int) -> bool:
    """Whether lists and objects are nested deeper than that."""
    level: list[object] = [value]
    for _ in range(most):
        level = [inner for one in level if isinstance(one, dict | list) for inner in _inside(one)]
        if not level:
            return False
    return True


def _inside(value: dict[str, object] | list[object]) -> list[object]:
    found = value.values() if isinstance(value, dict) else value
    return [inner for inner in found if isinstance(inner, dict | list)]
