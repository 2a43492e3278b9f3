"""Takes secrets out of a trace before it is stored. Knows only patterns: what none of them matches stays."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from corea.errors import ConfigError
from corea.types import Attempt, Message, Trace

REPLACEMENT = "[redacted]"


class Redactor:
    """Replaces every match in every text that a user or a model may have written."""

    def __init__(self, patterns: Iterable[str]) -> None:
        """Regular expressions, as Python's ``re`` reads them. Raises ConfigError for one that is none."""
        self._patterns = [_compiled(i, pattern) for i, pattern in enumerate(patterns)]

    def text(self, text: str) -> str:
        for pattern in self._patterns:
            text = pattern.sub(REPLACEMENT, text)
        return text

    def trace(self, trace: Trace) -> Trace:
        """The trace without what matches. Its id, tiers, models and figures stay."""
        if not self._patterns:
            return trace
        request = trace.request
        return replace(
            trace,
            request=replace(
                request,
                messages=tuple(Message(role=m.role, content=self.text(m.content)) for m in request.messages),
                id=self._maybe(request.id),
                task=self._maybe(request.task),
            ),
            attempts=tuple(self._attempt(attempt) for attempt in trace.attempts),
            metadata=self._json(dict(trace.metadata)),
        )

    def _attempt(self, attempt: Attempt) -> Attempt:
        failure = attempt.failure
        return replace(
            attempt,
            text=self.text(attempt.text),
            answer=self._maybe(attempt.answer),
            finish_reason=self._maybe(attempt.finish_reason),
            confidence=replace(attempt.confidence, note=self._maybe(attempt.confidence.note)),
            failure=None if failure is None else replace(failure, message=self.text(failure.message)),
        )

    def _maybe(self, text: str | None) -> str | None:
        return None if text is None else self.text(text)

    def _json(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self._json(name): self._json(inner) for name, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self._json(inner) for inner in value]
        return value


def _compiled(index: int, pattern: str) -> re.Pattern[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as exc:
        raise ConfigError(f"not a regular expression ({exc}); correct it", field=f"ledger.redact[{index}]") from exc
    if compiled.match(""):
        raise ConfigError(
            "matches the empty text, so it would be everywhere; correct it", field=f"ledger.redact[{index}]"
        )
    return compiled
