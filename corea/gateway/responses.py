"""The Responses API, as far as text goes: created whole or streamed, never stored.

Knows only how it is read and written. What is not plain text (tools, images, stored conversations) is refused with the
parameter's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from typing import Any

from corea.gateway.errors import bad_request, unsupported
from corea.gateway.reading import Body, read_chat, text
from corea.gateway.shapes import event, finish_reason
from corea.gateway_config import GatewayConfig
from corea.types import Message, Trace, Usage

Shape = dict[str, Any]

_UNSUPPORTED = ("tools", "previous_response_id", "conversation", "prompt", "background", "reasoning", "top_logprobs")


def read_input(body: Body, settings: GatewayConfig) -> tuple[Message, ...]:
    """The conversation, ``instructions`` first. Raises :class:`ApiError` that names the parameter."""
    for name in _UNSUPPORTED:
        if body.get(name):
            raise unsupported(name, f"{name} is not supported by /v1/responses here; use /v1/chat/completions")
    _check_format(body.get("text"))
    asked = body.get("input")
    turns = [{"role": "user", "content": asked}] if isinstance(asked, str) else asked
    if not isinstance(turns, list) or not turns:
        raise bad_request("input must be a text or a list of messages", "input")
    if isinstance(asked, str) and not asked.strip():
        raise bad_request("input is empty; write a question", "input")
    for index, turn in enumerate(turns):
        if isinstance(turn, dict) and turn.get("type", "message") != "message":
            raise unsupported("input", f"input[{index}] is a {str(turn['type'])[:40]}; only messages are supported")
    chat = read_chat({"model": text(body, "model"), "messages": turns}, settings)
    if chat.relay is not None:
        raise unsupported("input", "only text is supported by /v1/responses here; use /v1/chat/completions")
    instructions = body.get("instructions")
    if instructions is None:
        return chat.messages
    return (Message(role="system", content=text(body, "instructions")), *chat.messages)


def whole(trace: Trace, *, body: Body, id: str, corea: Shape | None) -> Shape:
    """A finished response."""
    attempt = trace.attempt
    counted = None if attempt is None else _usage(attempt.usage)
    cut = attempt is not None and finish_reason(attempt) == "length"
    shape = _shape(body, id=id, created_s=trace.started_at_unix_s, status="incomplete" if cut else "completed")
    return {
        **shape,
        "output": [_message(id, trace.text or "", "completed")],
        "usage": counted,
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        **({} if corea is None else {"corea": corea}),
    }


#: Events of :meth:`ResponseWriter.first`. Their numbers are the lowest, even where it is called after ``text``.
_FIRST = 4


class ResponseWriter:
    """The events of one streamed response, numbered."""

    def __init__(self, *, id: str, created_s: float, body: Body) -> None:
        self._id = id
        self._body = body
        self._created_s = created_s
        self._numbers = count(_FIRST)
        self._texts: list[str] = []

    def first(self) -> bytes:
        begun = _shape(self._body, id=self._id, created_s=self._created_s, status="in_progress")
        item = {**_message(self._id, "", "in_progress"), "content": []}
        events: list[tuple[str, Shape]] = [
            ("response.created", {"response": begun}),
            ("response.in_progress", {"response": begun}),
            ("response.output_item.added", {"output_index": 0, "item": item}),
            ("response.content_part.added", {**self._place, "part": _part("")}),
        ]
        return b"".join([_numbered(kind, number, fields) for number, (kind, fields) in enumerate(events)])

    def text(self, text: str) -> bytes:
        self._texts.append(text)
        return self._event("response.output_text.delta", **self._place, delta=text, logprobs=[])

    def last(self, trace: Trace, *, corea: Shape | None) -> bytes:
        said = "".join(self._texts)
        response = whole(trace, body=self._body, id=self._id, corea=corea)
        return (
            self._event("response.output_text.done", **self._place, text=said, logprobs=[])
            + self._event("response.content_part.done", **self._place, part=_part(said))
            + self._event("response.output_item.done", output_index=0, item=_message(self._id, said, "completed"))
            + self._event(f"response.{response['status']}", response=response)
        )

    @property
    def _place(self) -> Shape:
        return {"item_id": f"msg_{self._id}", "output_index": 0, "content_index": 0}

    def _event(self, kind: str, **fields: Any) -> bytes:
        return _numbered(kind, next(self._numbers), fields)


def _numbered(kind: str, number: int, fields: Shape) -> bytes:
    return event({"type": kind, "sequence_number": number, **fields}, kind)


def _shape(body: Body, *, id: str, created_s: float, status: str) -> Shape:
    return {
        "id": f"resp_{id}",
        "object": "response",
        "created_at": int(created_s),
        "status": status,
        "error": None,
        "incomplete_details": None,
        "instructions": body.get("instructions"),
        "max_output_tokens": body.get("max_output_tokens"),
        "model": body["model"],
        "output": [],
        "parallel_tool_calls": False,
        "previous_response_id": None,
        "store": False,
        "temperature": body.get("temperature"),
        "text": {"format": {"type": "text"}},
        "tool_choice": "none",
        "tools": [],
        "top_p": body.get("top_p"),
        "truncation": "disabled",
        "usage": None,
        "metadata": body.get("metadata") or {},
    }


def _message(id: str, said: str, status: str) -> Shape:
    return {"id": f"msg_{id}", "type": "message", "role": "assistant", "status": status, "content": [_part(said)]}


def _part(said: str) -> Shape:
    return {"type": "output_text", "text": said, "annotations": [], "logprobs": []}


def _usage(counted: Usage | None) -> Shape | None:
    if counted is None:
        return None
    return {
        "input_tokens": counted.prompt_tokens,
        "input_tokens_details": {"cached_tokens": counted.cached_prompt_tokens},
        "output_tokens": counted.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": counted.reasoning_tokens},
        "total_tokens": counted.prompt_tokens + counted.completion_tokens,
    }


def _check_format(value: object) -> None:
    if value is None:
        return
    form = value.get("format") if isinstance(value, Mapping) else value
    if form is not None and not (isinstance(form, Mapping) and form.get("type") == "text"):
        raise unsupported("text.format", "only text is supported by /v1/responses here; use /v1/chat/completions")
