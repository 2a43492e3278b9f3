"""The OpenAPI document against the running app: what it says is taken is taken, what it says is answered is answered.

schemathesis makes the requests, good ones and bad ones, from the document alone; always the same ones.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema_rs
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis import GenerationMode, checks
from schemathesis.specs.openapi import checks as openapi
from starlette.routing import Route

from corea.gateway.app import Gateway
from corea.gateway.openapi import document
from gateway.running import Running, serving
from gateway.upstream_like_openai import CALL, TOOL, relaying, schema

MESSAGES = [{"role": "user", "content": "What is 6 × 7?"}]
CHECKS = [
    checks.not_a_server_error,
    openapi.status_code_conformance,
    openapi.content_type_conformance,
    openapi.response_headers_conformance,
    openapi.response_schema_conformance,
    openapi.positive_data_acceptance,
    openapi.negative_data_rejection,
    openapi.unsupported_method,
]
ALWAYS_THE_SAME = settings(
    max_examples=15,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def described(mode: GenerationMode, document: dict[str, Any]) -> Any:
    for methods in document["paths"].values():
        for operation in methods.values():
            # With a key that was used before, a request is answered as the first one was.
            operation["parameters"] = [one for one in operation["parameters"] if one["name"] != "Idempotency-Key"]
    read = schemathesis.openapi.from_dict(document)
    # Who may ask is another test's business.
    read.config.generation.update(with_security_parameters=False, modes=[mode])
    return read


def narrowed() -> dict[str, Any]:
    """The document, and what it cannot know: the models there are, and that an empty question has no answer."""
    told = copied()
    shapes = told["components"]["schemas"]
    names, said, none = {"enum": ["corea", "large"]}, {"type": "string", "pattern": "^[a-z]{3,9}$"}, {"type": "null"}
    roles = {"enum": ["system", "developer", "user", "assistant"]}
    turn = {"type": "object", "required": ["role", "content"], "properties": {"role": roles, "content": said}}
    count = {"type": "integer", "minimum": 1, "maximum": 16}
    for name in ("Chat", "Completions", "Responses"):
        shapes[name]["properties"] |= {"model": names, "stream_options": none}
    shapes["Message"] = turn
    shapes["Chat"]["properties"]["n"] = count
    shapes["Completions"]["properties"] |= {"n": count, "best_of": count, "prompt": said}
    shapes["Responses"]["properties"]["input"] = {"anyOf": [said, {"type": "array", "items": turn, "minItems": 1}]}
    embedding = told["paths"]["/v1/embeddings"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    embedding["properties"]["model"] = {"const": "large"}
    return told


def copied() -> dict[str, Any]:
    told: dict[str, Any] = json.loads(json.dumps(document()))
    return told


GOOD = described(GenerationMode.POSITIVE, narrowed())
BAD = described(GenerationMode.NEGATIVE, copied())


@pytest.fixture(scope="module")
def relayed() -> Iterator[Running]:
    with relaying() as (running, _):
        yield running


@GOOD.parametrize()  # type: ignore[untyped-decorator]
@ALWAYS_THE_SAME
def test_what_the_document_asks_for_is_answered_as_it_says(case: Any, relayed: Running) -> None:
    answer = case.call(base_url=relayed.url)
    case.validate_response(answer, checks=CHECKS)


@BAD.parametrize()  # type: ignore[untyped-decorator]
@ALWAYS_THE_SAME
def test_what_the_document_does_not_allow_is_refused_as_it_says(case: Any, relayed: Running) -> None:
    answer = case.call(base_url=relayed.url)
    case.validate_response(answer, checks=CHECKS)


def test_the_document_and_the_app_have_the_same_routes(relayed: Running) -> None:
    told = {(path, method.upper()) for path, methods in document()["paths"].items() for method in methods}
    served = {
        (route.path.replace(":path", ""), getattr(route.endpoint, "method", None))
        for route in relayed.gateway.routes
        if isinstance(route, Route)
    }
    assert told == served


def test_the_document_is_valid_and_every_reference_in_it_leads_somewhere() -> None:
    schemathesis.openapi.from_dict(document()).validate()
    text = json.dumps(document())
    for name in {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}:
        assert name in document()["components"]["schemas"]


@pytest.mark.parametrize(
    "path,body",
    [
        ("/v1/chat/completions", {"messages": MESSAGES}),
        ("/v1/chat/completions", {"messages": MESSAGES, "tools": [TOOL]}),
        ("/v1/chat/completions", {"messages": MESSAGES, "response_format": schema(), "seed": 1, "stop": ["x"]}),
        ("/v1/chat/completions", {"messages": MESSAGES, "n": None, "max_tokens": 5, "temperature": None}),
        ("/v1/chat/completions", {"messages": [*MESSAGES, {"role": "assistant", "tool_calls": [CALL]}, *MESSAGES]}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": [{"type": "text", "text": "?"}]}]}),
        ("/v1/completions", {"prompt": "6 × 7 =", "max_tokens": 5}),
        ("/v1/completions", {"prompt": ["6 × 7 ="], "user": "ann"}),
        ("/v1/responses", {"input": "6 × 7?", "instructions": "Be brief.", "max_output_tokens": 5}),
        ("/v1/responses", {"input": [{"role": "user", "content": [{"type": "input_text", "text": "?"}]}]}),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_what_clients_send_and_get_is_as_the_document_says(
    relayed: Running, path: str, body: dict[str, Any], streamed: bool
) -> None:
    asked = {"model": "corea", **body, "stream": streamed}
    validator(path, "request").validate(asked)
    answer = httpx.post(relayed.url + path, json=asked)
    assert answer.status_code == 200
    if not streamed:
        validator(path, "200").validate(answer.json())


@pytest.mark.parametrize(
    "path,body,status",
    [
        ("/v1/chat/completions", {"model": "gpt-4", "messages": MESSAGES}, 404),
        ("/v1/chat/completions", {"model": "corea", "messages": []}, 400),
        ("/v1/embeddings", {"model": "corea", "input": "x"}, 400),
        ("/v1/corea/feedback", {"trace_id": "nope", "correct": 0.5}, 404),
    ],
)
def test_errors_are_as_the_document_says(relayed: Running, path: str, body: dict[str, Any], status: int) -> None:
    answer = httpx.post(relayed.url + path, json=body)
    assert answer.status_code == status
    validator(path, str(status)).validate(answer.json())


def test_a_draining_gateway_is_as_the_document_says() -> None:
    with serving() as running:
        running.gateway.draining = True
        answer = httpx.get(f"{running.url}/readyz")
        assert answer.status_code == 503
        validator("/readyz", "503", "get").validate(answer.json())


def test_a_path_that_takes_another_method_names_it(relayed: Running) -> None:
    with httpx.Client(base_url=relayed.url) as client:
        for path, methods in document()["paths"].items():
            (method,) = methods
            for other in {"GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"} - {method.upper()}:
                answer = client.request(other, path.replace("{model}", "corea"))
                assert (answer.status_code, answer.headers["allow"]) == (405, method.upper()), (other, path)


def validator(path: str, place: str, method: str = "post") -> Any:
    """Of the body of a request, or of the answer with a status."""
    operation = document()["paths"][path][method]
    holder = operation["requestBody"] if place == "request" else operation["responses"][place]
    return jsonschema_rs.validator_for(
        {**holder["content"]["application/json"]["schema"], "components": document()["components"]}
    )


def test_the_document_is_served(relayed: Running) -> None:
    assert httpx.get(f"{relayed.url}/openapi.json").json() == document()
    assert isinstance(relayed.gateway, Gateway)
