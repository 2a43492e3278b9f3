"""What a tier needs from a model, whoever serves it. Does not know prices, thresholds or confidence."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from corea.types import Prompt, Reply


@runtime_checkable
class Model(Protocol):
    """A language model that answers a prompt.

    ``complete`` raises only :class:`corea.errors.ModelError` (and lets ``CancelledError`` through); it never retries
    longer than ``timeout_s``, and a cancelled call stops the work behind it.
    """

    @property
    def name(self) -> str: ...

    async def complete(self, prompt: Prompt, *, timeout_s: float | None = None) -> Reply: ...

    async def aclose(self) -> None: ...
