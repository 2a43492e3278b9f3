"""Configuration → tiers, ready to be asked. Loads no weights, opens no connection: that waits for the first question.

Knows which class serves which kind of tier, and nothing of how a cascade runs.
"""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path

from corea.catalogue import CATALOGUE
from corea.confidence import Estimator, Expected, Logprob, PTrue, SelfConsistency, Verbalized
from corea.confidence.protocol import system_prompt
from corea.config import (
    ConfidenceConfig,
    Config,
    EmbeddedTier,
    OpenAITier,
    ProviderTier,
    TierConfig,
    api_key_of,
    price_of,
)
from corea.errors import ConfigError, ModelFileError, UnknownModel
from corea.models.base import Model
from corea.tier import Tier


def tiers_of(config: Config) -> tuple[Tier, ...]:
    """The tiers, cheapest first.

    Raises :class:`ConfigError` for a key that is not set, :class:`CatalogueError` for a model file that is not here.
    """
    last = len(config.tiers) - 1
    return tuple(_tier(tier, is_last=index == last) for index, tier in enumerate(config.tiers))


def missing_models(config: Config) -> tuple[str, ...]:
    """Names of catalogue models that the configuration uses and that are not on this disk yet."""
    from corea.models.verified import path_of

    names = dict.fromkeys(tier.model for tier in config.tiers if isinstance(tier, EmbeddedTier))
    return tuple(name for name in names if name in CATALOGUE and path_of(name) is None)


def fingerprint(config: Config) -> str:
    """Hash of all that shapes an answer or its confidence: models, prompts, sampling, estimators, thresholds."""
    return hashlib.sha256(json.dumps([shape_of(tier) for tier in config.tiers], sort_keys=True).encode()).hexdigest()[
        :16
    ]


def estimator_of(config: ConfidenceConfig) -> Estimator:
    """The estimator a tier's configuration names."""
    way = config.way
    if config.estimator == "logprob":
        return Logprob()
    if config.estimator == "p_true":
        return PTrue()
    if config.estimator == "self_consistency":
        return SelfConsistency(samples=config.samples, temperature=config.temperature)
    assert way != "none", "ConfidenceConfig has checked this"  # noqa: S101
    return Verbalized(ask=way) if config.estimator == "verbalized" else Expected(ask=way)


def _tier(tier: TierConfig, *, is_last: bool) -> Tier:
    return Tier(
        name=tier.name,
        model=_model(tier),
        # The last answer is final, so nobody pays to learn how sure it is.
        estimator=None if is_last else estimator_of(tier.confidence),
        threshold=None if is_last else tier.threshold,
        price=price_of(tier),
        timeout_s=tier.timeout_s,
        on_error=tier.on_error,
        max_tokens=tier.max_tokens,
        temperature=tier.temperature,
        system_prompt=tier.system_prompt,
    )


def _model(tier: TierConfig) -> Model:
    # Each kind's imports are its own: an OpenAI tier must not load llama.cpp.
    if isinstance(tier, EmbeddedTier):
        return _embedded(tier)
    key = api_key_of(tier)
    if isinstance(tier, ProviderTier):
        from corea.models.providers import ProviderModel

        return ProviderModel(
            tier.name,
            provider=tier.provider,
            model=tier.model,
            api_key=key,
            api_key_env=tier.api_key_env,
            base_url=tier.base_url,
            max_retries=tier.max_retries,
            rng=random.Random(),  # noqa: S311 - jitter, not secrets
        )
    return _openai(tier, key)


def _openai(tier: OpenAITier, key: str | None) -> Model:
    from corea.models.openai import OpenAIModel

    return OpenAIModel(
        tier.name,
        base_url=tier.base_url,
        model=tier.model,
        api_key=key,
        api_key_env=tier.api_key_env,
        max_retries=tier.max_retries,
        max_connections=tier.max_connections,
        extra_body=tier.extra_body,
        rng=random.Random(),  # noqa: S311 - jitter, not secrets
    )


def _embedded(tier: EmbeddedTier) -> Model:
    from corea.models.embedded import EmbeddedModel, EngineSettings

    settings = EngineSettings(
        path=_weights(tier),
        adapters=tuple((adapter.path.expanduser(), adapter.scale) for adapter in tier.adapters),
        context_tokens=tier.context_tokens,
        slots=tier.slots,
        threads=tier.threads,
    )
    return EmbeddedModel(tier.model, settings)


def _weights(tier: EmbeddedTier) -> Path:
    from corea.models.verified import path_of

    try:
        path = path_of(tier.model)
    except UnknownModel as exc:
        raise ConfigError(str(exc), field=f"tiers.{tier.name}.model") from exc
    if path is None:
        raise ModelFileError(f"{tier.model} is not on this disk yet; run: corea models pull {tier.model}")
    return path


def shape_of(tier: TierConfig) -> dict[str, object]:
    """What of a tier shapes its answers. Not its price, its time limits or its connection."""
    way = tier.confidence.way
    shape: dict[str, object] = {
        "kind": tier.kind,
        "model": tier.model,
        "threshold": tier.threshold,
        "confidence": tier.confidence.model_dump(),
        "prompt": system_prompt(inline=way == "inline" and tier.threshold is not None, custom=tier.system_prompt),
        "max_tokens": tier.max_tokens,
        "temperature": tier.temperature,
    }
    if isinstance(tier, EmbeddedTier):
        known = CATALOGUE.get(tier.model)
        shape["sha256"] = known.sha256 if known else None
        shape["adapters"] = [(str(adapter.path), adapter.scale) for adapter in tier.adapters]
    if isinstance(tier, OpenAITier | ProviderTier):
        shape["base_url"] = tier.base_url
    return shape
