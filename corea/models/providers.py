"""Any other provider (Anthropic, Gemini, Mistral, Bedrock, …), through the any-llm SDK: the extra ``providers``.

Knows no provider by name: any-llm speaks their dialects. Its own retries are off, because one time bound spans ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import inspect
import logging
import os
import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from corea.errors import (
    ConfigError,
    ContextOverflow,
    ExtraMissing,
    ModelError,
    Unauthorized,
    UpstreamGarbage,
    UpstreamRefused,
)
from corea.models.openai import close_each
from corea.models.retrying import RetryBudget, Sleep, retried
from corea.models.wire import error_of, excerpt, reply_of, request_body
from corea.types import Prompt, Reply

logger = logging.getLogger("corea.models.providers")

#: What a request may do without, where a provider does not take it. Without log-probabilities, tokens are None.
_DISPENSABLE: tuple[frozenset[str], ...] = (frozenset({"seed"}), frozenset({"logprobs", "top_logprobs"}))
_UNEXPECTED = re.compile(r"unexpected keyword argument '(\w+)'")
_CONNECTION_ERRORS = {"APIConnectionError", "ConnectError", "ReadError", "WriteError", "ConnectionError"}


class ProviderModel:
    """A model of ``provider``, by any-llm's name for it. Use ``aclose`` to close its connections.

    Without ``api_key``, any-llm reads the provider's usual environment variable. ``api_key_env`` is only named in
    messages. Raises :class:`ExtraMissing` without the SDK, and :class:`ConfigError` for a provider it does not know or
    whose own package is missing. Call ``aclose`` before an event loop ends, or its sockets wait for the garbage
    collector.
    """

    def __init__(
        self,
        name: str,
        *,
        provider: str,
        model: str,
        api_key: str | None = None,
        api_key_env: str | None = None,
        base_url: str | None = None,
        max_retries: int = 2,
        retry_budget: RetryBudget | None = None,
        rng: random.Random,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self.name = name
        self._provider = provider
        self._sdk = _sdk_of(provider)
        self._model = model
        self._key = (api_key or "").strip() or None
        self._key_env = api_key_env or self._sdk.ENV_API_KEY_NAME
        # any-llm's own look at the environment, so that this key too can be kept out of messages.
        self._secret = self._key or os.environ.get(self._key_env)
        self._base_url = base_url
        self._max_retries = max_retries
        self.retry_budget = retry_budget or RetryBudget()
        self._rng = rng
        self._sleep = sleep
        self._left_out: frozenset[str] = frozenset()
        self._clients: dict[asyncio.AbstractEventLoop, Any] = {}

    def __repr__(self) -> str:
        return f"ProviderModel({self.name!r}, provider={self._provider!r}, model={self._model!r})"

    async def complete(self, prompt: Prompt, *, timeout_s: float | None = None) -> Reply:
        """Ask for a completion, within ``timeout_s`` for all tries together. Raises only :class:`ModelError`."""
        arguments = request_body(prompt, self._model)
        # The SDK's own bound is only there to lift its default, which some providers refuse for long answers.
        if timeout_s is not None and self._sdk.TIMEOUT_SUPPORT != "unsupported":
            arguments["timeout"] = timeout_s
        reply, billed_twice = await retried(
            lambda: self._ask(arguments),
            model=self.name,
            max_retries=self._max_retries,
            budget=self.retry_budget,
            timeout_s=timeout_s,
            rng=self._rng,
            sleep=self._sleep,
        )
        return replace(reply, usage=None) if billed_twice else reply

    async def aclose(self) -> None:
        """Close all connections. Those of a loop that runs elsewhere are closed there."""
        clients, self._clients = self._clients, {}
        await close_each(clients, _close)

    async def _ask(self, arguments: Mapping[str, Any]) -> Reply:
        taken = {key: value for key, value in arguments.items() if key not in self._left_out}
        try:
            answer = await (await self._client()).acompletion(**taken)
            payload = answer.model_dump(warnings=False)
        except TimeoutError:
            raise
        except Exception as exc:  # noqa: BLE001 - whatever a provider's SDK raises, a model error comes out
            if self._can_do_without(exc):
                return await self._ask(arguments)
            # An SDK's own message may echo the key, so it stays out of tracebacks.
            raise self._error_of(exc) from None
        return reply_of(payload, self.name, secret=self._secret)

    def _can_do_without(self, exc: Exception) -> bool:
        """Whether a dispensable parameter was refused before anything was sent. From now on it is left out."""
        match = _UNEXPECTED.search(str(exc))
        refused = match[1] if match else str(getattr(exc, "parameter_name", ""))
        group = next((group for group in _DISPENSABLE if refused in group), frozenset())
        if group <= self._left_out:
            return False
        self._left_out |= group
        logger.warning(
            "%s: %s does not take %s; asking without", self.name, self._provider, " and ".join(sorted(group))
        )
        return True

    async def _client(self) -> Any:
        """This loop's client: connections are bound to the loop that opened them. Those of ended loops are closed."""
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            retries = {} if self._sdk.MAX_RETRIES_SUPPORT == "unsupported" else {"max_retries": 0}
            client = self._sdk(api_key=self._key, api_base=self._base_url, unified_exceptions=True, **retries)
            self._clients[loop] = client
        for ended in [other for other in self._clients if other.is_closed()]:
            await _close(self._clients.pop(ended))
        return client

    def _error_of(self, exc: Exception) -> ModelError:
        """Our error for one of any-llm's. Raises :class:`TimeoutError` where the SDK's own time was up."""
        from any_llm.exceptions import AnyLLMError, ContextLengthExceededError, MissingApiKeyError

        said = excerpt(str(exc), self._secret)
        if isinstance(exc, MissingApiKeyError):
            return Unauthorized(f"{self.name}: no API key; set {exc.env_var_name}", status=401)
        if isinstance(exc, ContextLengthExceededError):
            return ContextOverflow(f"{self.name}: the question does not fit the model's context: {said}")
        if isinstance(exc, AnyLLMError) and exc.status_code is not None and not 200 <= exc.status_code < 300:
            headers, text = _answer_of(exc)
            return error_of(exc.status_code, headers, text, self.name, secret=self._secret, api_key_env=self._key_env)
        return self._connection_error(exc) or self._unlike_a_completion(exc, said)

    def _connection_error(self, exc: Exception) -> ModelError | None:
        causes = {type(cause).__name__: str(cause) for cause in _causes(exc)}
        if any("Timeout" in name for name in causes):
            raise TimeoutError from None
        protocol = causes.get("RemoteProtocolError")
        if protocol is not None and "without sending a response" not in protocol:
            return UpstreamGarbage(
                f"{self.name}: {self._provider} cut its answer off or does not speak HTTP; try again"
            )
        if protocol is not None or not _CONNECTION_ERRORS.isdisjoint(causes):
            where = self._base_url or self._provider
            refused = UpstreamRefused(f"{self.name}: no answer from {where}; check base_url and the network")
            # Not where the connection was never made: then nothing was sent.
            refused.may_be_billed = "ConnectError" not in causes
            return refused
        return None

    def _unlike_a_completion(self, exc: Exception, said: str) -> ModelError:
        from any_llm.exceptions import ProviderError, UnsupportedParameterError

        if isinstance(exc, UnsupportedParameterError):
            return ModelError(f"{self.name}: {said}; choose an estimator or provider that does without it")
        if isinstance(exc, ProviderError | ValueError):
            return UpstreamGarbage(f"{self.name}: not a chat completion: {said}")
        return ModelError(f"{self.name}: {self._provider} failed: {said or type(exc).__name__}")


def _sdk_of(provider: str) -> Any:
    """any-llm's class for a provider."""
    try:
        from any_llm import AnyLLM
        from any_llm.exceptions import UnsupportedProviderError
    except ImportError as exc:
        raise ExtraMissing(package="any-llm-sdk", extra="providers") from exc
    install = f'needs its own package; run: pip install "any-llm-sdk[{provider}]"'
    try:
        sdk = AnyLLM.get_provider_class(provider)
    except UnsupportedProviderError:
        near = difflib.get_close_matches(provider, AnyLLM.get_supported_providers(), n=1)
        hint = f'; did you mean "{near[0]}"?' if near else "; see any-llm's list of providers"
        raise ConfigError(f'any-llm knows no provider "{provider}"{hint}', field="provider") from None
    except ImportError as exc:
        raise ConfigError(install, field="provider") from exc
    if sdk.MISSING_PACKAGES_ERROR is not None:
        raise ConfigError(install, field="provider") from sdk.MISSING_PACKAGES_ERROR
    return sdk


async def _close(client: Any) -> None:
    """Close an any-llm client, whichever way its provider's SDK spells it."""
    close = getattr(getattr(client, "client", None), "close", None)
    # A client of an ended loop cannot close its sockets, but must be told: left open, it would try again when it is
    # collected, in whatever loop then runs.
    with contextlib.suppress(RuntimeError):
        closing = close() if callable(close) else None
        if inspect.isawaitable(closing):
            await closing


def _answer_of(exc: Any) -> tuple[Mapping[str, str], str]:
    """Headers and text of the HTTP answer behind an any-llm error, as far as the provider's SDK kept them."""
    response = getattr(exc.original_exception, "response", None)
    headers, text = getattr(response, "headers", None), getattr(response, "text", None)
    return (
        headers if isinstance(headers, Mapping) else {},
        text if isinstance(text, str) and text else str(exc.message),
    )


def _causes(exc: BaseException) -> Iterator[BaseException]:
    """The error behind any-llm's, and what caused it. The SDKs share no classes, so only the names tell."""
    cause: BaseException | None = getattr(exc, "original_exception", None) or exc
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__
