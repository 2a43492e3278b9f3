"""One entry of LiteLLM's ``model_list`` → one tier. Knows neither its neighbours nor which tier it will be.

Nothing that may be a secret is copied: of keys only the names of variables, of addresses no user and no query. What is
not taken over is named, never quoted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any
from urllib.parse import urlsplit

from pydantic import TypeAdapter

from corea.config import TierConfig, price_of
from corea.importing.toml_text import Value
from corea.prices import Price

Note = Callable[[str, str], None]

ENVIRON = "os.environ/"
NO_COUNTERPART = "has no counterpart here"
#: Stands for an address that was not in the file; nobody will ever answer there (RFC 2606).
NOWHERE = "http://set-base-url.invalid/v1"

#: LiteLLM's providers that speak OpenAI's dialect, with the address that LiteLLM uses where none is given.
_OPENAI_LIKE: Mapping[str, str | None] = {
    "openai": "https://api.openai.com/v1",
    "nvidia_nim": "https://integrate.api.nvidia.com/v1",
    "ollama": "http://localhost:11434",
    "ollama_chat": "http://localhost:11434",
    "hosted_vllm": None,
    "custom_openai": None,
    "openai_like": None,
    "litellm_proxy": None,
    "lm_studio": None,
    "llamafile": None,
    "xinference": None,
}
#: LiteLLM's name → any-llm's.
PROVIDERS: Mapping[str, str] = {
    "anthropic": "anthropic",
    "azure": "azureopenai",
    "azure_ai": "azure",
    "bedrock": "bedrock",
    "cerebras": "cerebras",
    "cohere": "cohere",
    "cohere_chat": "cohere",
    "dashscope": "dashscope",
    "databricks": "databricks",
    "deepinfra": "deepinfra",
    "deepseek": "deepseek",
    "fireworks_ai": "fireworks",
    "gemini": "gemini",
    "github": "github",
    "groq": "groq",
    "huggingface": "huggingface",
    "minimax": "minimax",
    "mistral": "mistral",
    "moonshot": "moonshot",
    "nebius": "nebius",
    "openrouter": "openrouter",
    "perplexity": "perplexity",
    "sagemaker": "sagemaker",
    "sagemaker_chat": "sagemaker",
    "sambanova": "sambanova",
    "together_ai": "together",
    "vertex_ai": "vertexai",
    "watsonx": "watsonx",
    "xai": "xai",
    "zai": "zai",
}
#: What LiteLLM makes of a name without a provider.
_BY_NAME = ((re.compile(r"(gpt-|chatgpt-|ft:gpt-|o\d)"), "openai"), (re.compile(r"claude"), "anthropic"))
_USUAL_KEY = {"openai": "OPENAI_API_KEY", "nvidia_nim": "NVIDIA_NIM_API_KEY", "azure": "AZURE_API_KEY"}
#: Keys that servers without keys are given, because a client insists on one.
_NO_KEY = {"", "-", "x", "none", "null", "empty", "dummy", "fake", "fake-key", "not-needed", "no-key", "anything"}
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DEAREST_USD_PER_MILLION = 10**6

_TIER: TypeAdapter[TierConfig] = TypeAdapter(TierConfig)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """A model that can be a tier. ``settings`` are the tier's, without name and threshold."""

    model_name: str
    place: str
    settings: Mapping[str, Value]
    price: Price | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """What LiteLLM's other sections say for every model."""

    timeout_s: float | None = None
    max_retries: int | None = None


def deployment(
    entry: Any, place: str, *, defaults: Defaults, note: Note, environ: Mapping[str, str]
) -> Deployment | None:
    """None where it cannot be a tier; ``note(place, why)`` is told of that, and of everything left out."""
    entry = entry if isinstance(entry, dict) else {}
    given, info = entry.get("litellm_params"), entry.get("model_info")
    params = _Params(given if isinstance(given, dict) else {}, f"{place}.litellm_params", note)
    about = _Params(info if isinstance(info, dict) else {}, f"{place}.model_info", note)
    name, model = model_name_of(entry), printable(params.take("model"))
    if name is None or model is None:
        note(place, "no tier: it needs a model_name and litellm_params.model")
        return None
    mode = about.take("mode")
    if mode not in (None, "chat"):
        note(place, "no tier: it is not a model to chat with; clients can't reach it here")
        return None
    if "*" in name or "*" in model:
        note(place, "no tier: a pattern stands for many models; name the ones you want")
        return None
    provider, model = _provider(model, printable(params.take("custom_llm_provider")))
    if provider not in _OPENAI_LIKE and provider not in PROVIDERS:
        note(place, "no tier: its provider is not known here; is there an OpenAI-compatible address for it?")
        return None
    settings: dict[str, Value] = {
        **_who(provider, model, params, name=name, environ=environ),
        **_prices(params, about),
        **_how(params, defaults, openai=provider in _OPENAI_LIKE),
    }
    for left in ("rpm", "tpm"):
        limit = params.take(left) or entry.get(left)
        if limit is not None:
            most = as_number(limit) or "…"
            note(place, f"{left} limits a deployment there; here keys have limits: corea keys create --{left} {most}")
    if settings["kind"] == "provider":
        needed = f"pip install 'corea[providers]' 'any-llm-sdk[{settings['provider']}]'"
        note(place, f"is of kind provider, which takes no tools and no images, and needs: {needed}")
    params.note_rest()
    about.note_rest()
    for left in sorted(map(str, entry.keys() - {"model_name", "litellm_params", "model_info", "rpm", "tpm"})):
        note(f"{place}.{left}", NO_COUNTERPART)
    price = price_of(_TIER.validate_python({**settings, "name": "x"}))
    if price is None:
        note(place, "no price is known: its cost will be unknown; add prices = { input = …, output = … } to the tier")
    return Deployment(model_name=name, place=place, settings=settings, price=price)


def model_name_of(entry: Any) -> str | None:
    """What clients call it."""
    return printable(entry.get("model_name")) if isinstance(entry, dict) else None


class _Params:
    """A section that is used up: what nobody took is noted."""

    def __init__(self, values: Mapping[Any, Any], place: str, note: Note) -> None:
        self._left = {str(name): value for name, value in values.items() if value is not None}
        self._place = place
        self._note = note

    def has(self, name: str) -> bool:
        return name in self._left

    def take(self, *names: str) -> Any:
        """The first of them that is there."""
        found = [self._left.pop(name) for name in names if name in self._left]
        return found[0] if found else None

    def note(self, name: str, words: str) -> None:
        self._note(f"{self._place}.{name}", words)

    def number(self, *names: str, least: float, most: float) -> Decimal | None:
        """Noted, and None, where it is no number or out of bounds; brought to the bound where it is above it."""
        value = self.take(*names)
        if value is None:
            return None
        number = as_number(value)
        if number is None or number < Decimal(str(least)):
            self.note(names[0], "is not a number that a tier can have; left out")
            return None
        if number > Decimal(str(most)):
            self.note(names[0], f"is more than a tier can have; it is {most:g} now")
        return min(number, Decimal(str(most)))

    def note_rest(self) -> None:
        for name in sorted(self._left):
            self.note(name, _WORDS.get(name, NO_COUNTERPART))


_WORDS = {
    "api_version": "is not needed: Azure's v1 API has no dated versions",
    "stream_timeout": "has no counterpart here; timeout_s and cascade.deadline_s bound streams as well",
    "extra_body": "was not copied, as it may hold secrets; a tier of kind openai has extra_body",
    "extra_headers": "was not copied, as it may hold secrets; tiers send no headers of yours",
    "aws_region_name": "set the variable AWS_REGION instead",
    "vertex_project": "set the variable GOOGLE_CLOUD_PROJECT instead",
    "vertex_location": "set the variable GOOGLE_CLOUD_LOCATION instead",
}


def _provider(model: str, named: str | None) -> tuple[str, str]:
    """``openai/gpt-4o`` → (``openai``, ``gpt-4o``); an empty provider where nothing tells it."""
    prefix, _, rest = model.partition("/")
    if named is not None:
        return named, rest if prefix == named and rest else model
    if rest and (prefix in _OPENAI_LIKE or prefix in PROVIDERS):
        return prefix, rest
    return next((provider for pattern, provider in _BY_NAME if pattern.match(model)), ""), model


def _who(provider: str, model: str, params: _Params, *, name: str, environ: Mapping[str, str]) -> dict[str, Value]:
    """Kind, model, address and key."""
    if provider == "bedrock":
        model = re.sub(r"^(converse|invoke)/", "", model)
    address = _address(params, environ)
    if params.has("api_key"):
        key = _key(params, name)
    elif address is None or provider in PROVIDERS:
        key = _USUAL_KEY.get(provider)
    else:
        key = None
        if provider in _USUAL_KEY:
            params.note("api_key", f"is missing; {_USUAL_KEY[provider]} is not sent to another address by itself")
    if provider == "azure" and address is None:
        params.note("api_base", "is missing; set base_url, or the variable AZURE_OPENAI_ENDPOINT")
    keyed: dict[str, Value] = {} if key is None else {"api_key_env": key}
    if provider in PROVIDERS:
        at: dict[str, Value] = {} if address is None else {"base_url": address}
        return {"kind": "provider", "provider": PROVIDERS[provider], "model": model, **at, **keyed}
    address = address or _OPENAI_LIKE[provider]
    if address is None:
        params.note("api_base", f"is missing; {NOWHERE} stands for it: set base_url")
        address = NOWHERE
    if provider.startswith("ollama") and not address.endswith("/v1"):
        address = f"{address.rstrip('/')}/v1"
    return {"kind": "openai", "model": model, "base_url": address, **keyed}


def _address(params: _Params, environ: Mapping[str, str]) -> str | None:
    """Scheme, host and path: what is before an @ or after a ? may be a secret."""
    value = params.take("api_base", "base_url")
    if value is None:
        return None
    if isinstance(value, str) and value.startswith(ENVIRON):
        value = environ.get(value.removeprefix(ENVIRON), "")
        params.note("api_base", "is read from a variable there; here its present value, if it has one, is in the file")
    address = cleaned_address(value)
    if address is None:
        params.note("api_base", f"is no http address; {NOWHERE} stands for it: set base_url")
        return NOWHERE
    if "@" in value or "?" in value:
        params.note("api_base", "its user or query was left out, as it may be a secret")
    return address


def cleaned_address(value: object) -> str | None:
    """An http address without user, query and fragment; None for anything else."""
    if not isinstance(value, str) or printable(value) is None or any(map(str.isspace, value.strip())):
        return None
    with suppress(ValueError):
        parts = urlsplit(value.strip())
        # A port that is none is found out by asking for it; an @ in the path belonged to a password with a slash.
        _ = parts.port
        if parts.scheme in ("http", "https") and parts.hostname and "@" not in parts.path:
            return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    return None


def _key(params: _Params, name: str) -> str | None:
    """Name of the variable that holds the key; the key itself is never copied."""
    value = params.take("api_key")
    variable = variable_in(value)
    if variable is not None:
        return variable
    if str(value).strip().lower() in _NO_KEY:
        params.note("api_key", "stands for no key, so the tier has none")
        return None
    variable = re.sub(r"[^A-Z0-9]+", "_", name.upper().encode("ascii", "ignore").decode()).strip("_")[:48]
    variable = f"{variable}_API_KEY" if variable[:1].isalpha() else f"MODEL_{variable}_API_KEY".replace("__", "_")
    params.note("api_key", f"the key in the file was not copied; run: export {variable}=…, and renew that key")
    return variable


def _prices(params: _Params, about: _Params) -> dict[str, Value]:
    """USD per million tokens; nothing where only one side is known, so that the list price holds."""

    def per_million(name: str) -> float | None:
        value = params.take(name)
        other = about.take(name)
        number = as_number(other if value is None else value)
        if number is not None and 0 <= number * 10**6 <= _DEAREST_USD_PER_MILLION:
            return float(number * 10**6)
        if value is not None or other is not None:
            params.note(name, "is no price per token; left out")
        return None

    paid, written = per_million("input_cost_per_token"), per_million("output_cost_per_token")
    cached = per_million("cache_read_input_token_cost")
    if paid is None or written is None:
        if (paid, written, cached) != (None, None, None):
            params.note("input_cost_per_token", "and output_cost_per_token make a price only together; left out")
        return {}
    prices: dict[str, Value] = {"input": paid, "output": written}
    return {"prices": prices if cached is None else {**prices, "cached_input": cached}}


def _how(params: _Params, defaults: Defaults, *, openai: bool) -> dict[str, Value]:
    """Times, retries and sampling."""
    timeout_s = params.number("timeout", least=0.001, most=86_400)
    retries = params.number("max_retries", "num_retries", least=0, most=10)
    max_tokens = params.number("max_tokens", "max_completion_tokens", least=1, most=10**7)
    temperature = params.number("temperature", least=0, most=2)
    at_once = params.number("max_parallel_requests", least=1, most=10**5) if openai else None
    chosen = {
        "timeout_s": defaults.timeout_s if timeout_s is None else float(timeout_s),
        "max_retries": defaults.max_retries if retries is None else int(retries),
        "max_tokens": None if max_tokens is None else int(max_tokens),
        "temperature": None if temperature is None else float(temperature),
        "max_connections": None if at_once is None else int(at_once),
    }
    return {name: value for name, value in chosen.items() if value is not None}


def variable_in(value: object) -> str | None:
    """``os.environ/NAME`` → ``NAME``."""
    if not isinstance(value, str) or not value.startswith(ENVIRON):
        return None
    name = value.removeprefix(ENVIRON).strip()
    return name if _VARIABLE.fullmatch(name) else None


def as_number(value: object) -> Decimal | None:
    """YAML 1.1 reads 1e-06 as a text, so texts that are numbers count."""
    if isinstance(value, bool) or not isinstance(value, int | float | str) or len(str(value)) > 40:
        return None
    with suppress(InvalidOperation):
        number = Decimal(str(value).strip())
        if number.is_finite() and abs(number.adjusted()) < 40:
            return number
    return None


def printable(value: object) -> str | None:
    """A text of one line that can be shown; None for anything else."""
    if not isinstance(value, str) or not 0 < len(value) <= 512 or not value.strip():
        return None
    return value.strip() if value.isprintable() else None
