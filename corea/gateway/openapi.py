"""The OpenAPI document of the gateway, by hand: its paths, and every status that each of them may answer with."""

from __future__ import annotations

from functools import cache
from typing import Any

from corea import __version__
from corea.gateway import schemas
from corea.gateway.schemas import TEXT, ref

Shape = dict[str, Any]

_MEANINGS = {
    "400": "The request cannot be answered as it is; `param` says what is wrong with it.",
    "401": "No key, or a wrong one.",
    "403": "The key is not for this model, or the policy or task is not for a request to choose.",
    "404": "There is no such model, or no such thing.",
    "405": "Another method.",
    "409": "A request with this Idempotency-Key is being worked on.",
    "413": "The body is too large.",
    "415": "The tier does not take this.",
    "422": "The Idempotency-Key was used for another request, or the tier cannot work with this one.",
    "429": "Too much at once, or over a limit; `Retry-After` says when to come back.",
    "501": "This gateway keeps no feedback.",
    "502": "A model failed.",
    "503": "Down or shutting down; come back later.",
    "504": "No answer in time.",
}
#: What every path may answer with, if it needs a key.
_ALWAYS = ("401", "405", "503")
#: What may become of a request that a model works on.
_WORK = ("400", "403", "404", "409", "413", "415", "422", "429", "502", "504")
_HEADERS: Shape = {"x-request-id": {"required": True, "schema": TEXT}}
_ERROR_HEADERS: Shape = {
    **_HEADERS,
    "x-should-retry": {"required": True, "schema": {"enum": ["true", "false"]}},
    "retry-after": {"schema": {"type": "string", "pattern": "^[0-9]+$"}},
}
_ANSWER_HEADERS: Shape = {
    **_HEADERS,
    **{
        f"x-corea-{name}": {"schema": TEXT}
        for name in ("trace-id", "route", "deferred", "confidence", "cost-usd", "saved-usd", "overhead-ms")
    },
}
_ASKING: list[Shape] = [
    {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "Sent again with the same key, a request gets its first answer.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
    },
    *(
        {
            "name": f"x-corea-{name}",
            "in": "header",
            "description": description,
            "schema": {"type": "string", "minLength": 1, "maxLength": 64, "pattern": "^[!-~]+$"},
        }
        for name, description in (
            ("policy", "The policy to be answered by, of those that may be chosen."),
            ("task", "What task the question is of, where its key or model does not say."),
        )
    ),
    {
        "name": "x-corea-body",
        "in": "header",
        "description": "off leaves the field corea out of the body.",
        "schema": TEXT,
    },
]


@cache
def document() -> Shape:
    return {
        "openapi": "3.1.0",
        "info": {"title": "COREA gateway", "version": __version__, "license": {"name": "Apache-2.0"}},
        "security": [{"key": []}],
        "paths": {
            "/v1/chat/completions": _work("Answer a conversation.", ref("Chat"), ref("Answer"), streams=True),
            "/v1/completions": _work("Answer a text.", ref("Completions"), ref("Answer"), streams=True),
            "/v1/responses": _work(
                "Answer a text or a conversation.", ref("Responses"), schemas.RESPONSE, streams=True
            ),
            "/v1/embeddings": _work("Embed texts, by one tier.", schemas.EMBEDDINGS, schemas.EMBEDDINGS_ANSWER),
            "/v1/models": _get("What may be named as model.", schemas.MODELS),
            "/v1/models/{model}": _get("One of them.", ref("Model"), parameter="model", also=("403", "404")),
            "/v1/corea/feedback": _post(
                "Say whether an answer was right.",
                schemas.FEEDBACK,
                _json(schemas.FEEDBACK_ANSWER),
                also=("400", "404", "413", "501"),
            ),
            "/healthz": _get("Alive.", schemas.STATUS, open=True),
            "/readyz": _get("Ready for requests; 503 while draining.", schemas.STATUS, open=True),
            "/metrics": _get("Prometheus metrics.", TEXT, content="text/plain"),
            "/openapi.json": _get("This document.", {"type": "object"}),
        },
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "schemas": schemas.COMPONENTS,
        },
    }


def _work(summary: str, taken: Shape, answered: Shape, *, streams: bool = False) -> Shape:
    content = _json(answered)
    if streams:
        content["text/event-stream"] = {"schema": schemas.EVENT}
    return _post(summary, taken, content, also=_WORK, parameters=_ASKING, headers=_ANSWER_HEADERS)


def _post(
    summary: str,
    taken: Shape,
    content: Shape,
    *,
    also: tuple[str, ...],
    parameters: list[Shape] | None = None,
    headers: Shape = _HEADERS,
) -> Shape:
    return {
        "post": {
            "summary": summary,
            "parameters": parameters or [],
            "requestBody": {"required": True, "content": _json(taken)},
            "responses": _answers(content, headers, (*_ALWAYS, *also)),
        }
    }


def _get(
    summary: str,
    answered: Shape,
    *,
    parameter: str | None = None,
    open: bool = False,
    also: tuple[str, ...] = (),
    content: str = "application/json",
) -> Shape:
    parameters = [] if parameter is None else [{"name": parameter, "in": "path", "required": True, "schema": TEXT}]
    answers = _answers({content: {"schema": answered}}, _HEADERS, ("405", *also) if open else (*_ALWAYS, *also))
    if open:
        answers["503"] = {"description": "Not now.", "headers": _HEADERS, "content": _json({"type": "object"})}
    return {
        "get": {
            "summary": summary,
            "parameters": parameters,
            "responses": answers,
            **({"security": []} if open else {}),
        }
    }


def _answers(content: Shape, headers: Shape, also: tuple[str, ...]) -> Shape:
    error = {"headers": _ERROR_HEADERS, "content": _json(ref("Error"))}
    errors = {status: {"description": _MEANINGS[status], **error} for status in sorted(also)}
    return {"200": {"description": "Done.", "headers": headers, "content": content}, **errors}


def _json(schema: Shape) -> Shape:
    return {"application/json": {"schema": schema}}
