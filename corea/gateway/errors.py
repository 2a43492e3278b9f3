"""Errors as OpenAI's clients expect them: a status, a body with ``error``, and whether another try can help."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from corea.errors import CascadeExhausted, CoreaError, InputError, LedgerError, ModelError
from corea.types import Failure, Reason, Trace

#: What the last failure of a cascade means to the client: status, code, and whether to try again. A time-out used up
#: the whole deadline, and garbage was tried again already: the client's own tries would only cost the same once more.
_FAILURES: Mapping[str, tuple[int, str, bool]] = {
    "RateLimited": (429, "rate_limit_exceeded", True),
    "UpstreamTimeout": (504, "upstream_timeout", False),
    "DeadlineExceeded": (504, "deadline_exceeded", False),
    "UpstreamRefused": (502, "upstream_unreachable", True),
    "CircuitOpen": (503, "upstream_down", True),
    "UpstreamStatus": (502, "upstream_error", True),
    "UpstreamGarbage": (502, "upstream_garbage", False),
    "Unauthorized": (502, "upstream_unauthorized", False),
    "ContextOverflow": (400, "context_length_exceeded", False),
}


class ApiError(Exception):
    """An answer that is an error. ``retry``: whether the SDKs are to try again by themselves; ``allow``: the method
    that a path takes."""

    def __init__(
        self,
        message: str,
        *,
        status: int,
        code: str | None = None,
        param: str | None = None,
        type: str = "invalid_request_error",
        retry: bool = False,
        retry_after_s: float | None = None,
        allow: str | None = None,
        trace: Trace | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param
        self.type = type
        self.retry = retry
        self.retry_after_s = retry_after_s
        self.allow = allow
        self.trace = trace

    @property
    def body(self) -> dict[str, Any]:
        return {"error": {"message": str(self), "type": self.type, "param": self.param, "code": self.code}}

    @property
    def headers(self) -> dict[str, str]:
        headers = {"x-should-retry": "true" if self.retry else "false"}
        if self.retry_after_s is not None:
            headers["retry-after"] = str(max(1, round(self.retry_after_s)))
        if self.allow is not None:
            headers["allow"] = self.allow
        return headers


def bad_request(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    return ApiError(message, status=400, param=param, code=code)


def unsupported(param: str, message: str) -> ApiError:
    return ApiError(message, status=400, param=param, code="unsupported_parameter")


def api_error(exc: CoreaError) -> ApiError:
    """What an error of COREA's means to the client. Nothing of ours, a path or a trace of calls, is in it."""
    if isinstance(exc, InputError):
        return bad_request(str(exc), "messages")
    if isinstance(exc, CascadeExhausted):
        return _exhausted(exc)
    if isinstance(exc, LedgerError):
        message = "the ledger cannot be used, and nothing is answered without it; look at the gateway's log"
        return ApiError(message, status=503, code="ledger_unavailable", type="server_error", retry=True)
    if isinstance(exc, ModelError):
        return _failed(Failure(kind=type(exc).__name__, message=str(exc)), getattr(exc, "retry_after_s", None))
    return internal()


def internal() -> ApiError:
    message = "something went wrong in the gateway; its log has the details under this x-request-id"
    return ApiError(message, status=500, code="internal_error", type="server_error")


def _exhausted(exc: CascadeExhausted) -> ApiError:
    attempts = exc.trace.attempts
    if attempts and all(attempt.decision.reason is Reason.TOO_LONG for attempt in attempts):
        return ApiError(str(exc), status=400, param="messages", code="context_length_exceeded", trace=exc.trace)
    failure = next((attempt.failure for attempt in reversed(attempts) if attempt.failure is not None), None)
    if failure is None or failure.kind == "ContextOverflow":
        return ApiError(str(exc), status=502, code="cascade_exhausted", type="server_error", trace=exc.trace)
    error = _failed(failure, None)
    return ApiError(
        str(exc),
        status=error.status,
        code=error.code,
        type=error.type,
        retry=error.retry,
        retry_after_s=error.retry_after_s,
        trace=exc.trace,
    )


def _failed(failure: Failure, retry_after_s: float | None) -> ApiError:
    status, code, retry = _FAILURES.get(failure.kind, (502, "upstream_error", False))
    kind = {400: "invalid_request_error", 429: "rate_limit_error"}.get(status, "server_error")
    if status == 503 and retry_after_s is None:
        retry_after_s = 1.0
    return ApiError(failure.message, status=status, code=code, type=kind, retry=retry, retry_after_s=retry_after_s)
