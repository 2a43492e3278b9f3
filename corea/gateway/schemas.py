"""JSON schemas of what the gateway takes and answers, for its OpenAPI document. Knows no paths.

What it takes is OpenAI's API, so only what we act on is named; the rest is handed on or ignored.
"""

from __future__ import annotations

from typing import Any

Shape = dict[str, Any]

TEXT: Shape = {"type": "string"}
_WORD: Shape = {"type": "string", "minLength": 1}
_BOOL: Shape = {"type": "boolean"}
_COUNT: Shape = {"type": "integer", "minimum": 0}
_OBJECTS: Shape = {"type": "array", "items": {"type": "object"}}


def thing(required: list[str], **properties: Shape) -> Shape:
    """An object with at least these properties."""
    return {"type": "object", "required": required, "properties": properties}


def ref(name: str) -> Shape:
    return {"$ref": f"#/components/schemas/{name}"}


def _or_null(kind: str, **limits: Any) -> Shape:
    return {"type": [kind, "null"], **limits}


_LENGTH = _or_null("integer", minimum=1, maximum=10**7)
_STOP = {"anyOf": [_WORD, {"type": "array", "items": _WORD, "maxItems": 4}, {"type": "null"}]}
_SAMPLING: Shape = {
    "temperature": _or_null("number", minimum=0, maximum=2),
    "top_p": _or_null("number", minimum=0, maximum=1),
    "presence_penalty": _or_null("number", minimum=-2, maximum=2),
    "frequency_penalty": _or_null("number", minimum=-2, maximum=2),
    "seed": _or_null("integer", minimum=-(2**63), maximum=2**63 - 1),
    "stop": _STOP,
    "user": _or_null("string", minLength=1),
}
_STREAM: Shape = {
    "stream": _or_null("boolean"),
    "stream_options": _or_null("object", properties={"include_usage": _or_null("boolean")}),
}
_PART: Shape = {
    **thing(["type"], type=TEXT),
    "if": {"properties": {"type": {"enum": ["text", "input_text", "output_text"]}}},
    "then": thing(["text"], text=TEXT),
}
_CONTENT: Shape = {"anyOf": [TEXT, {"type": "array", "minItems": 1, "items": _PART}]}
_ROLES = ["system", "developer", "user", "assistant"]

MESSAGE: Shape = {
    "anyOf": [
        thing(["role", "content"], role={"enum": [*_ROLES, "tool", "function"]}, content=_CONTENT),
        # With calls, there may be nothing to say.
        thing(
            ["role", "tool_calls"],
            role={"enum": [*_ROLES, "tool", "function"]},
            content={"anyOf": [*_CONTENT["anyOf"], {"type": "null"}]},
            tool_calls={**_OBJECTS, "minItems": 1},
        ),
    ]
}
CHAT = thing(
    ["model", "messages"],
    model=_WORD,
    messages={"type": "array", "minItems": 1, "items": ref("Message")},
    max_tokens=_LENGTH,
    max_completion_tokens=_LENGTH,
    n=_or_null("integer", minimum=1),
    tools=_or_null("array"),
    response_format=_or_null("object"),
    **_SAMPLING,
    **_STREAM,
)
COMPLETIONS = thing(
    ["model", "prompt"],
    model=_WORD,
    prompt={"anyOf": [TEXT, {"type": "array", "minItems": 1}]},
    max_tokens=_LENGTH,
    n=_or_null("integer", minimum=1),
    best_of=_or_null("integer", minimum=1),
    **_SAMPLING,
    **_STREAM,
)
_TURN = thing(["role", "content"], type={"const": "message"}, role={"enum": _ROLES}, content=_CONTENT)
RESPONSES = thing(
    ["model", "input"],
    model=_WORD,
    input={"anyOf": [TEXT, {"type": "array", "minItems": 1, "items": _TURN}]},
    instructions=_or_null("string", minLength=1),
    max_output_tokens=_LENGTH,
    stream=_STREAM["stream"],
    temperature=_SAMPLING["temperature"],
    top_p=_SAMPLING["top_p"],
)
EMBEDDINGS = thing(["model", "input"], model=_WORD, input={"anyOf": [TEXT, {"type": "array", "minItems": 1}]})
FEEDBACK = thing(
    ["trace_id", "correct"],
    trace_id=_WORD,
    correct={"anyOf": [_BOOL, {"type": "number", "minimum": 0, "maximum": 1}]},
)

COREA = thing(
    ["trace_id", "route", "confidence", "deferred", "cost_usd", "saved_usd", "overhead_ms"],
    trace_id=TEXT,
    route=TEXT,
    confidence=_or_null("number", minimum=0, maximum=1),
    deferred=_BOOL,
    cost_usd=_or_null("string"),
    saved_usd=_or_null("string"),
    overhead_ms={"type": "number", "minimum": 0},
    model=_or_null("string"),
    reason=_or_null("string"),
    explanation=TEXT,
)
USAGE = {
    "anyOf": [
        thing(
            ["prompt_tokens", "completion_tokens", "total_tokens"],
            prompt_tokens=_COUNT,
            completion_tokens=_COUNT,
            total_tokens=_COUNT,
        ),
        {"type": "null"},
    ]
}
ANSWER = thing(
    ["choices"],
    id=TEXT,
    object=TEXT,
    created={"type": "integer"},
    model=TEXT,
    choices={**_OBJECTS, "minItems": 1},
    usage=ref("Usage"),
    corea=ref("Corea"),
)
RESPONSE = thing(
    ["id", "object", "created_at", "status", "model", "output", "usage"],
    id=TEXT,
    object={"const": "response"},
    created_at={"type": "integer"},
    status={"enum": ["completed", "incomplete"]},
    model=TEXT,
    output=_OBJECTS,
    usage=_or_null("object"),
    corea=ref("Corea"),
)
#: One event of a stream.
EVENT = thing(["data"], data=TEXT, event=TEXT)
EMBEDDINGS_ANSWER = thing(["data"], data={**_OBJECTS, "minItems": 1})
MODEL = thing(
    ["id", "object", "created", "owned_by"],
    id=TEXT,
    object={"const": "model"},
    created={"type": "integer"},
    owned_by=TEXT,
)
MODELS = thing(["object", "data"], object={"const": "list"}, data={"type": "array", "items": ref("Model")})
FEEDBACK_ANSWER = thing(["object", "trace_id", "correct"], object={"const": "corea.feedback"}, trace_id=TEXT)
STATUS = thing(["status"], status=TEXT)
ERROR = thing(
    ["error"],
    error=thing(
        ["message", "type", "param", "code"],
        message=_WORD,
        type=TEXT,
        param=_or_null("string"),
        code=_or_null("string"),
    ),
)

COMPONENTS: Shape = {
    "Answer": ANSWER,
    "Chat": CHAT,
    "Completions": COMPLETIONS,
    "Corea": COREA,
    "Error": ERROR,
    "Message": MESSAGE,
    "Model": MODEL,
    "Responses": RESPONSES,
    "Usage": USAGE,
}
