"""The OpenAPI document of the gateway, by hand: what it takes is OpenAI's API, so it names only what we act on."""

from __future__ import annotations

from functools import cache
from typing import Any

from corea import __version__

Shape = dict[str, Any]

_TEXT = {"type": "string"}
_BOOL = {"type": "boolean"}
_WHOLE = {"type": "integer", "minimum": 1}
_MESSAGE = {
    "type": "object",
    "required": ["role"],
    "properties": {
        "role": {"enum": ["system", "developer", "user", "assistant", "tool", "function"]},
        "content": {"anyOf": [_TEXT, {"type": "array", "items": {"type": "object"}}, {"type": "null"}]},
    },
}
_SAMPLING: Shape = {
    "temperature": {"type": ["number", "null"], "minimum": 0, "maximum": 2},
    "top_p": {"type": ["number", "null"], "minimum": 0, "maximum": 1},
    "presence_penalty": {"type": ["number", "null"], "minimum": -2, "maximum": 2},
    "frequency_penalty": {"type": ["number", "null"], "minimum": -2, "maximum": 2},
    "seed": {"type": ["integer", "null"]},
    "stop": {"anyOf": [_TEXT, {"type": "array", "items": _TEXT, "maxItems": 4}, {"type": "null"}]},
    "user": {"type": ["string", "null"]},
}
_STREAM: Shape = {
    "stream": {"type": ["boolean", "null"]},
    "stream_options": {"type": ["object", "null"], "properties": {"include_usage": _BOOL}},
}


@cache
def document() -> Shape:
    return {
        "openapi": "3.1.0",
        "info": {"title": "COREA gateway", "version": __version__, "license": {"name": "Apache-2.0"}},
        "security": [{"key": []}],
        "paths": {
            "/v1/chat/completions": _post("Answer a conversation.", _chat(), streams=True),
            "/v1/completions": _post("Answer a text.", _completions(), streams=True),
            "/v1/responses": _post("Answer a text or a conversation.", _responses(), streams=True),
            "/v1/embeddings": _post("Embed texts, by one tier.", _embeddings()),
            "/v1/models": _get("What may be named as model."),
            "/v1/models/{model}": _get("One of them.", parameter="model"),
            "/v1/corea/feedback": _post("Say whether an answer was right.", _feedback()),
            "/healthz": _get("Alive.", open=True),
            "/readyz": _get("Ready for requests; 503 while draining.", open=True, also=("503",)),
            "/metrics": _get("Prometheus metrics.", content="text/plain"),
            "/openapi.json": _get("This document."),
        },
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "schemas": {"Error": _error()},
        },
    }


def _chat() -> Shape:
    messages = {"type": "array", "minItems": 1, "items": _MESSAGE}
    limits = {"max_tokens": _WHOLE, "max_completion_tokens": _WHOLE, "n": _WHOLE}
    return _object(["model", "messages"], model=_TEXT, messages=messages, **limits, **_SAMPLING, **_STREAM)


def _completions() -> Shape:
    prompt = {"anyOf": [_TEXT, {"type": "array", "minItems": 1}]}
    return _object(["model", "prompt"], model=_TEXT, prompt=prompt, max_tokens=_WHOLE, **_SAMPLING, **_STREAM)


def _responses() -> Shape:
    asked = {"anyOf": [_TEXT, {"type": "array", "minItems": 1, "items": {"type": "object"}}]}
    return _object(
        ["model", "input"],
        model=_TEXT,
        input=asked,
        instructions={"type": ["string", "null"]},
        max_output_tokens=_WHOLE,
        stream=_STREAM["stream"],
        temperature=_SAMPLING["temperature"],
        top_p=_SAMPLING["top_p"],
    )


def _embeddings() -> Shape:
    return _object(["model", "input"], model=_TEXT, input={"anyOf": [_TEXT, {"type": "array", "minItems": 1}]})


def _feedback() -> Shape:
    return _object(["trace_id", "correct"], trace_id=_TEXT, correct=_BOOL)


def _object(required: list[str], **properties: Shape) -> Shape:
    return {"type": "object", "required": required, "properties": properties}


def _post(summary: str, schema: Shape, *, streams: bool = False) -> Shape:
    content: Shape = {"application/json": {}, **({"text/event-stream": {}} if streams else {})}
    body = {"required": True, "content": {"application/json": {"schema": schema}}}
    return {"post": {"summary": summary, "requestBody": body, "responses": _responses_of(content)}}


def _get(
    summary: str,
    *,
    parameter: str | None = None,
    open: bool = False,
    also: tuple[str, ...] = (),
    content: str = "application/json",
) -> Shape:
    parameters = [] if parameter is None else [{"name": parameter, "in": "path", "required": True, "schema": _TEXT}]
    answers = _responses_of({content: {}}) | {status: {"description": "Not now."} for status in also}
    return {
        "get": {
            "summary": summary,
            "parameters": parameters,
            "responses": answers,
            **({"security": []} if open else {}),
        }
    }


def _responses_of(content: Shape) -> Shape:
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {
        "200": {"description": "Done.", "content": content},
        "4XX": {"description": "The request cannot be answered as it is.", "content": error},
        "5XX": {"description": "It could not be answered.", "content": error},
    }


def _error() -> Shape:
    nullable = {"type": ["string", "null"]}
    error = {
        "type": "object",
        "required": ["message", "type", "param", "code"],
        "properties": {"message": _TEXT, "type": _TEXT, "param": nullable, "code": nullable},
    }
    return _object(["error"], error=error)
