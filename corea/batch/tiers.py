"""Tiers of a batch: how many questions each may work on at once, and a model that is elsewhere. Knows no Ray."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from corea.cascade import Cascade
from corea.errors import InputError, ModelError
from corea.models.base import Model
from corea.types import Prompt, Reply


class Limited:
    """A model that is asked at most so many questions at once; the others wait, on their own time."""

    def __init__(self, model: Model, at_once: int) -> None:
        self._model = model
        self._free = asyncio.Semaphore(at_once)

    @property
    def name(self) -> str:
        return self._model.name

    async def complete(self, prompt: Prompt, *, timeout_s: float | None = None) -> Reply:
        async with self._free:
            return await self._model.complete(prompt, timeout_s=timeout_s)

    async def aclose(self) -> None:
        await self._model.aclose()


def limit(cascade: Cascade, at_once: Mapping[str, int]) -> Cascade:
    """The cascade, its tiers limited, by name. Raises :class:`InputError` for a name that is none."""
    check_names(at_once, cascade)
    cascade.tiers = tuple(
        replace(tier, model=Limited(tier.model, at_once[tier.name])) if tier.name in at_once else tier
        for tier in cascade.tiers
    )
    return cascade


def check_names(named: Iterable[str], cascade: Cascade) -> None:
    there = [tier.name for tier in cascade.tiers]
    for name in named:
        if name not in there:
            raise InputError(f'no tier is called "{name}"; there are: {", ".join(there)}')


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """An error of a model, as it goes from one process to another: not every exception survives pickling."""

    kind: type[ModelError]
    message: str
    fields: Mapping[str, Any]

    @classmethod
    def of(cls, error: ModelError) -> Refusal:
        return cls(kind=type(error), message=str(error), fields=dict(vars(error)))

    @property
    def error(self) -> ModelError:
        error = self.kind.__new__(self.kind, self.message)
        error.__dict__.update(self.fields)
        return error
