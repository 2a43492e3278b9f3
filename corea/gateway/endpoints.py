"""Who answers for a tier, and where, as OpenTelemetry's GenAI conventions name them. Knows only the configuration."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import PurePath
from urllib.parse import urlsplit

from corea.config import Config, OpenAITier, ProviderTier, TierConfig

#: How GenAI's conventions name who runs an endpoint. One that is not listed speaks OpenAI's dialect.
_HOSTS = {
    "openai.azure.com": "azure.ai.openai",
    "api.anthropic.com": "anthropic",
    "api.deepseek.com": "deepseek",
    "api.groq.com": "groq",
    "api.mistral.ai": "mistral_ai",
    "api.perplexity.ai": "perplexity",
    "api.x.ai": "x_ai",
    "generativelanguage.googleapis.com": "gcp.gemini",
}
#: any-llm's names, where the conventions have others.
_PROVIDERS = {
    "azureopenai": "azure.ai.openai",
    "bedrock": "aws.bedrock",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "vertexai": "gcp.vertex_ai",
    "watsonx": "ibm.watsonx.ai",
    "xai": "x_ai",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Who answers for a tier, and where."""

    provider: str = "openai"
    model: str | None = None
    address: str | None = None
    port: int | None = None


def endpoints_of(config: Config) -> dict[str, Endpoint]:
    """By the tiers' names."""
    return {tier.name: _endpoint(tier) for tier in config.tiers}


def _endpoint(tier: TierConfig) -> Endpoint:
    url = urlsplit(getattr(tier, "base_url", None) or "")
    port = url.port or {"http": 80, "https": 443}.get(url.scheme)
    where = Endpoint(model=tier.model, address=url.hostname, port=port)
    if isinstance(tier, OpenAITier):
        host = url.hostname or ""
        known = (name for end, name in _HOSTS.items() if host == end or host.endswith(f".{end}"))
        return replace(where, provider=next(known, "openai"))
    if isinstance(tier, ProviderTier):
        return replace(where, provider=_PROVIDERS.get(tier.provider, tier.provider))
    return replace(where, provider="llama.cpp", model=PurePath(tier.model).name)
