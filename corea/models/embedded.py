"""GGUF models in this process, through llama.cpp's own server (xllamacpp). Knows no tiers and downloads nothing.

The engine is llama.cpp's server, listening on a loopback port with a key of its own; it is talked to as any other
OpenAI-compatible endpoint. That buys continuous batching, and cancellation: a hung-up connection stops the decoding.
One engine serves all tiers with the same file and settings; the last one to close it unloads it.
"""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import threading
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from corea.errors import EngineMissing, ModelFileError
from corea.models.base import Delta
from corea.models.openai import OpenAIModel
from corea.types import Prompt, Reply

#: Host memory, in MiB, for the prompts of conversations that lost their slot. llama.cpp's own default is 8 GiB.
PROMPT_CACHE_MIB = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """What makes two engines the same engine."""

    path: Path
    #: LoRA adapters (GGUF) with their scales, all applied.
    adapters: tuple[tuple[Path, float], ...] = ()
    #: Context of one conversation, in tokens.
    context_tokens: int = 4096
    #: Conversations decoded together.
    slots: int = 4
    #: CPU threads; None is every core this process may use.
    threads: int | None = None


@dataclass(slots=True)
class _Engine:
    """A loaded model and the number of models that use it."""

    server: Any
    address: str
    key: str = field(repr=False)
    users: int = 0


_engines: dict[EngineSettings, _Engine] = {}
_lock = threading.Lock()


class EmbeddedModel:
    """A :class:`corea.models.base.Model` over a local file. The file is loaded at the first question."""

    def __init__(self, name: str, settings: EngineSettings) -> None:
        """Raises :class:`ModelFileError` when the file or an adapter is not there or is not GGUF."""
        for path in (settings.path, *(path for path, _ in settings.adapters)):
            check_gguf(path)
        self._name = name
        self._settings = settings
        self._client: OpenAIModel | None = None
        self._loading = threading.Lock()
        self._closed = False

    @property
    def name(self) -> str:
        return self._name

    async def complete(self, prompt: Prompt, *, timeout_s: float | None = None) -> Reply:
        client = self._client if self._client is not None else await asyncio.to_thread(self._open)
        return await client.complete(prompt, timeout_s=timeout_s)

    async def stream(self, prompt: Prompt, *, timeout_s: float | None = None) -> AsyncGenerator[Delta, None]:
        client = self._client if self._client is not None else await asyncio.to_thread(self._open)
        async with aclosing(client.stream(prompt, timeout_s=timeout_s)) as deltas:
            async for delta in deltas:
                yield delta

    async def load(self) -> None:
        """Load the file now, not at the first question. Raises :class:`ModelFileError` when llama.cpp refuses it."""
        if self._client is None:
            await asyncio.to_thread(self._open)

    async def aclose(self) -> None:
        """Give the engine up; the last user unloads it. Closing twice is fine."""
        client, self._client, self._closed = self._client, None, True
        if client is None:
            return
        await client.aclose()
        await asyncio.to_thread(_release, self._settings)

    def _open(self) -> OpenAIModel:
        # Two first questions at once must load one engine, and count as one user of it.
        with self._loading:
            if self._closed:
                raise ModelFileError(f"{self._name} was closed; build a new cascade to ask again")
            if self._client is None:
                engine = _acquire(self._settings)
                self._client = OpenAIModel(
                    self._name,
                    base_url=f"{engine.address}/v1",
                    model=self._name,
                    api_key=engine.key,
                    max_retries=0,
                    max_connections=0,
                    rng=random.Random(0),  # noqa: S311 - jitter of retries that never happen
                )
            return self._client


def check_gguf(path: Path) -> None:
    """Raise :class:`ModelFileError` unless the file starts as a GGUF file does."""
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as exc:
        raise ModelFileError(f"{path} cannot be read ({exc.strerror}); give the path of a .gguf file") from exc
    if magic != b"GGUF":
        raise ModelFileError(f"{path} is not a GGUF file; convert the model with llama.cpp or choose another file")


def loaded_engines() -> Sequence[Path]:
    """Files loaded at the moment, for tests and diagnostics."""
    with _lock:
        return [settings.path for settings in _engines]


def _acquire(settings: EngineSettings) -> _Engine:
    with _lock:
        engine = _engines.get(settings)
        if engine is None:
            engine = _engines[settings] = _start(settings)
        engine.users += 1
        return engine


def _release(settings: EngineSettings) -> None:
    with _lock:
        engine = _engines[settings]
        engine.users -= 1
        if engine.users == 0:
            # Dropping the last reference stops the server and frees the weights.
            del _engines[settings]


def _start(settings: EngineSettings) -> _Engine:
    xllamacpp = _library()
    key = secrets.token_urlsafe(24)
    params = xllamacpp.CommonParams()
    params.model.path = str(settings.path)
    params.n_ctx = settings.context_tokens * settings.slots
    params.n_parallel = settings.slots
    params.cache_ram_mib = PROMPT_CACHE_MIB
    params.fit_params = False
    params.verbosity = 0
    params.ui = False
    params.api_keys = [key]
    threads = settings.threads or len(os.sched_getaffinity(0))
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    params.lora_adapters = [_adapter(xllamacpp, path, scale) for path, scale in settings.adapters]
    try:
        server = xllamacpp.Server(params)
    except RuntimeError as exc:
        raise ModelFileError(
            f"llama.cpp cannot load {settings.path} ({_one_line(exc)}); check it with: corea models verify"
        ) from exc
    return _Engine(server=server, address=server.listening_address, key=key)


def _library() -> Any:
    try:
        import xllamacpp
    except ImportError as exc:
        raise EngineMissing(
            f"llama.cpp cannot be loaded ({_one_line(exc)}); if libgomp is missing, install your system's package "
            "(Debian: apt-get install libgomp1), else run: pip install --force-reinstall xllamacpp"
        ) from exc
    return xllamacpp


def _adapter(xllamacpp: Any, path: Path, scale: float) -> Any:
    adapter = xllamacpp.CommonAdapterLoraInfo()
    adapter.path, adapter.scale = str(path), scale
    return adapter


def _one_line(exc: Exception) -> str:
    return " ".join(str(exc).split())[:200] or type(exc).__name__
