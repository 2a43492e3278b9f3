"""A tier's model in processes of its own, called from all workers of a batch on Ray. Needs the extra ``ray``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from corea.batch.tiers import Refusal, check_names
from corea.cascade import Cascade
from corea.errors import CoreaError, InputError, ModelError, UpstreamRefused
from corea.models.base import Model
from corea.types import Prompt, Reply

#: How long all processes of a pool may be away, seconds. Ray starts them again, elsewhere where it must.
PATIENCE_S = 60.0
_PAUSE_S = 0.5

#: Makes a cascade, in whichever process it is called.
Build = Callable[[], Cascade]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """``size`` processes, each with so many CPUs and GPUs."""

    size: int
    cpus: float = 1
    gpus: float = 0


class Host:
    """An actor with the model of one tier."""

    def __init__(self, build: Build, tier: str) -> None:
        self._build = build
        self._tier = tier
        self._model: Model | None = None

    async def complain(self) -> str | None:
        """Why it cannot be used, if it cannot."""
        try:
            self._loaded()
        except CoreaError as exc:
            return str(exc)
        return None

    async def complete(self, prompt: Prompt, timeout_s: float | None) -> Reply | Refusal:
        try:
            return await self._loaded().complete(prompt, timeout_s=timeout_s)
        except ModelError as exc:
            return Refusal.of(exc)

    def _loaded(self) -> Model:
        if self._model is None:
            cascade = self._build()
            check_names([self._tier], cascade)
            self._model = next(tier.model for tier in cascade.tiers if tier.name == self._tier)
        return self._model


class Remote:
    """A :class:`corea.models.base.Model` that lives in such actors. The one with the least to do is asked."""

    def __init__(self, name: str, hosts: Sequence[Any]) -> None:
        self.name = name
        self._hosts = hosts
        self._busy = [0] * len(hosts)

    async def complete(self, prompt: Prompt, *, timeout_s: float | None = None) -> Reply:
        """One that died is not waited for while another is there; all of them together, for ``PATIENCE_S``."""
        from ray.exceptions import ActorDiedError, ActorUnavailableError

        waited_s = 0.0
        while True:
            for index in sorted(range(len(self._hosts)), key=self._busy.__getitem__):
                try:
                    outcome = await self._ask(index, prompt, timeout_s)
                except (ActorDiedError, ActorUnavailableError):
                    continue
                if isinstance(outcome, Refusal):
                    raise outcome.error
                return outcome
            if waited_s >= PATIENCE_S:
                raise UpstreamRefused(f"no process of the pool of {self.name} is alive; look at Ray's logs")
            await asyncio.sleep(_PAUSE_S)
            waited_s += _PAUSE_S

    async def aclose(self) -> None:
        """The actors belong to the batch, and end with it."""

    async def _ask(self, index: int, prompt: Prompt, timeout_s: float | None) -> Reply | Refusal:
        import ray

        self._busy[index] += 1
        answer = self._hosts[index].complete.remote(prompt, timeout_s)
        try:
            outcome: Reply | Refusal = await answer
        except asyncio.CancelledError:
            ray.cancel(answer)
            raise
        finally:
            self._busy[index] -= 1
        return outcome


def host(build: Build, tier: str, pool: Pool) -> list[Any]:
    """The actors of a pool, ready. Raises :class:`InputError` where one of them cannot be used."""
    import ray

    options = {"num_cpus": pool.cpus, "num_gpus": pool.gpus, "max_restarts": -1}
    hosts = [ray.remote(Host).options(**options).remote(build, tier) for _ in range(pool.size)]
    for complaint in ray.get([one.complain.remote() for one in hosts]):
        if complaint is not None:
            raise InputError(f'the pool of tier "{tier}" cannot start: {complaint}')
    return hosts
