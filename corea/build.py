"""Configuration → tiers, ready to be asked. Loads no weights, opens no connection: that waits for the first question.

Knows which class serves which kind of tier, and nothing of how a cascade runs.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from corea.catalogue import CATALOGUE
from corea.confidence import Estimator, SelfConsistency
from corea.confidence.fitted import Fitted, read
from corea.confidence.fitted import load as load_map
from corea.confidence.named import estimator
from corea.config import (
    WAYS_TO_ASK,
    Ask,
    BreakerConfig,
    ConfidenceConfig,
    Config,
    EmbeddedTier,
    OpenAITier,
    ProviderTier,
    TierConfig,
    api_key_of,
    price_of,
)
from corea.errors import ConfigError, InputError, ModelFileError, UnknownModel
from corea.guards.base import Guard
from corea.guards.domain import Unlike
from corea.guards.domain import load as load_domain
from corea.guards.registry import UNLIKE, guards, labels
from corea.identity import asks_in_a_second_turn, hashes_of, shapes_of, signal_of
from corea.models.base import Model
from corea.models.breaker import Breaker, BreakerSettings
from corea.policy import order
from corea.policy.base import Policies, Second
from corea.policy.certificate import Certificate, check_applies, load
from corea.policy.critical import Foreseen, check_independent
from corea.policy.drops import Drops
from corea.policy.drops import check_applies as check_drops_apply
from corea.policy.drops import load as load_drops
from corea.policy.gate import Gate
from corea.policy.gate import check_applies as check_gate_applies
from corea.policy.gate import label as label_of_gate
from corea.policy.gate import load as load_gate
from corea.policy.ladder_certificate import check_ladder_applies, is_ladder
from corea.policy.ladder_certificate import load as load_ladder
from corea.policy.spent import Counted, Spent
from corea.policy.tasks import load as load_tasks
from corea.policy_config import CriticalConfig
from corea.tier import Tier

if TYPE_CHECKING:
    from corea.ledger import Ledger
    from corea.models.retrying import RetryBudget


def tiers_of(config: Config, *, to_measure: bool = False) -> tuple[Tier, ...]:
    """The tiers, cheapest first. ``to_measure``: nothing will be kept, so certificates and maps may be of other models.

    Raises :class:`ConfigError` for a key that is not set, :class:`CatalogueError` for a model file that is not here,
    :class:`InputError` for a certificate or a confidence map that was made for other models or prompts.
    """
    if to_measure:
        # Or one could not measure anew what a change has made void.
        config = config.with_threshold(1.0)
    last = config.tiers[-1]
    models = {tier.name: _model(tier) for tier in config.tiers}
    # What is measured must not have been left out, so it has no gate.
    rules = {
        tier.name: _Rules() if tier is last else _rules(config, tier, gated=not to_measure) for tier in config.tiers
    }
    certificates = _of_ladder(config, rules) or {
        tier.name: _certificate(config, tier, rules[tier.name]) for tier in config.tiers
    }
    if not to_measure:
        for tier in config.tiers:
            _check_map(config, tier)
    return tuple(
        _tier(
            tier,
            models[tier.name],
            certificate=certificates[tier.name],
            rules=rules[tier.name],
            # A measurement waits for a tier that is ill; it must not leave questions out.
            breaker=None if to_measure else _breaker(tier.breaker),
            is_last=tier is last,
        )
        for tier in config.tiers
    )


def policies_of(
    config: Config, ledger: Ledger | None = None, *, wall_clock: Callable[[], float] = time.time
) -> Policies:
    """The policies by name, and whose they are. Budgets are counted in ``ledger``; without one, by this process alone.

    Raises :class:`ConfigError` where the second signal of ``critical`` is none, :class:`InputError` where the file that
    tells tasks cannot be used, :class:`LedgerError` where what was spent cannot be read.
    """

    def spent(task: str | None) -> Spent:
        if ledger is None:
            return Counted()
        from corea.policy.hours import LedgerHours

        return LedgerHours(ledger, task=task, wall_clock=wall_clock)

    named = {
        name: order.build(
            name,
            policy,
            tiers=[tier.name for tier in config.tiers],
            has_certificate=any(tier.certificate is not None for tier in config.tiers),
            spent=spent,
            second=None if policy.critical is None else _second(config, name, policy.critical),
            drops=None if policy.budget is None else _drops(config, name, policy.budget.drops),
            wall_clock=wall_clock,
        )
        for name, policy in config.policies.items()
    }
    selectable = frozenset(name for name, policy in config.policies.items() if policy.selectable)
    told = config.cascade.recognise
    return Policies(
        named=named,
        by_task=config.tasks,
        default=config.cascade.policy,
        selectable=selectable,
        recogniser=None if told is None else load_tasks(told),
    )


def _drops(config: Config, name: str, path: Path | None) -> Drops | None:
    """What each threshold costs, once it is sure that it was measured on these tiers."""
    if path is None:
        return None
    field = f"policies.{name}.budget.drops"
    if len(config.tiers) != 2:
        raise ConfigError(f"drops are of two tiers, not {len(config.tiers)}; leave them out", field=field)
    try:
        found = load_drops(path)
        models, prompts = hashes_of(shapes_of(config).values())
        signal = signal_of(config.tiers[0].confidence)
        check_drops_apply(found, models_hash=models, prompts_hash=prompts, signal=signal, source=str(path))
    except InputError as exc:
        raise ConfigError(str(exc), field=field) from exc
    return found


def _second(config: Config, name: str, critical: CriticalConfig) -> Second:
    """The second signal, once it is sure that it can be read and is not the first one again."""
    field = f"policies.{name}.critical"
    try:
        second = _second_signal(config, critical)
        for tier in config.tiers[:-1]:
            first = estimator_of(tier.confidence)
            check_independent(_read_from(first), _read_from(second), tier=tier.name)
            if second.ask == "inline" or second.top_logprobs > first.top_logprobs:
                raise ConfigError(
                    f'"{critical.estimator}" is read from the reply, which {tier.name} is not asked to write so; '
                    "make it the tier's own signal, and name another one here",
                    field=field,
                )
    except ValidationError as exc:
        raise ConfigError(str(exc.errors()[0]["msg"]).removeprefix("Value error, "), field=field) from None
    except InputError as exc:
        raise ConfigError(str(exc), field=field) from exc
    return Second(estimator=second, threshold=critical.threshold)


def _second_signal(config: Config, critical: CriticalConfig) -> Estimator:
    """Raises :class:`InputError` for a file that is missing, damaged or of another tier."""
    signal = critical.estimator
    if signal == "gate" and critical.gate is not None:
        gate = load_gate(critical.gate)
        for tier in config.tiers[:-1]:
            models, prompts = hashes_of([shapes_of(config)[tier.name]])
            check_gate_applies(gate, model=models, prompt=prompts, source=str(critical.gate))
        return Foreseen(gate=gate)
    assert signal != "gate"  # noqa: S101 - it has a gate, by its configuration
    way: Ask | None = "followup" if "followup" in WAYS_TO_ASK[signal] else None
    return estimator_of(ConfidenceConfig(**critical.model_dump(exclude={"threshold", "gate"}), ask=way))


def _read_from(estimator: Estimator) -> tuple[str, ...]:
    return estimator.map.signals if isinstance(estimator, Fitted) else (estimator.name,)


def missing_models(config: Config) -> tuple[str, ...]:
    """Names of catalogue models that the configuration uses and that are not on this disk yet."""
    from corea.models.verified import path_of

    names = dict.fromkeys(tier.model for tier in config.tiers if isinstance(tier, EmbeddedTier))
    return tuple(name for name in names if name in CATALOGUE and path_of(name) is None)


def estimator_of(config: ConfidenceConfig) -> Estimator:
    """The estimator a tier's configuration names.

    Raises :class:`InputError` for a confidence map that is missing or damaged, or reads what it has no leave for.
    """
    if config.map is not None:
        fitted = read(config.map)
        return Fitted(
            map=fitted,
            estimators={signal: estimator(signal, allow_code=config.allow_code) for signal in fitted.signals},
        )
    if config.estimator == "self_consistency":
        return SelfConsistency(samples=config.samples, temperature=config.temperature)
    name = f"{config.estimator}_followup" if asks_in_a_second_turn(config) else config.estimator
    return estimator(name, allow_code=config.allow_code)


def guards_of(tier: TierConfig) -> tuple[Guard, ...]:
    """The guards a tier's configuration names. Raises :class:`InputError` for a domain that is missing or damaged."""
    if tier.domain is None:
        return guards(tier.guards)
    return guards((*tier.guards, UNLIKE), unlike=Unlike(domain=load_domain(tier.domain)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rules:
    """What stands beside a tier's threshold, read once; the last tier has none."""

    guards: tuple[Guard, ...] = ()
    gate: Gate | None = None

    @property
    def gate_label(self) -> str | None:
        return None if self.gate is None else label_of_gate(self.gate)


def _rules(config: Config, tier: TierConfig, *, gated: bool) -> _Rules:
    """Raises :class:`InputError` for a domain or gate that is missing or damaged, and for another tier's gate."""
    guards = guards_of(tier)
    if tier.gate is None or not gated:
        return _Rules(guards=guards)
    gate = load_gate(tier.gate)
    models, prompts = hashes_of([shapes_of(config)[tier.name]])
    check_gate_applies(gate, model=models, prompt=prompts, source=str(tier.gate))
    return _Rules(guards=guards, gate=gate)


def _of_ladder(config: Config, rules: Mapping[str, _Rules]) -> dict[str, Certificate | None]:
    """What one certificate of all tiers together says of each, once it is sure that it applies; empty without one."""
    named = [tier.certificate for tier in config.tiers[:-1]]
    ladders = [path for path in dict.fromkeys(named) if path is not None and is_ladder(path)]
    if not ladders:
        return {}
    if len(set(named)) > 1:
        raise ConfigError(
            f"{ladders[0]} promises for all tiers together; name it as the certificate of each tier but the last",
            field="tiers",
        )
    certificate = load_ladder(ladders[0])
    models, prompts = hashes_of(shapes_of(config).values())
    check_ladder_applies(
        certificate,
        models_hash=models,
        prompts_hash=prompts,
        signals=tuple(signal_of(tier.confidence) for tier in config.tiers[:-1]),
        guards=tuple(labels(rules[tier.name].guards) for tier in config.tiers[:-1]),
        gates=tuple(rules[tier.name].gate_label for tier in config.tiers[:-1]),
        source=str(ladders[0]),
    )
    found: dict[str, Certificate | None] = {config.tiers[-1].name: None}
    return found | {tier.name: certificate.of_tier(index) for index, tier in enumerate(config.tiers[:-1])}


def _certificate(config: Config, tier: TierConfig, rules: _Rules) -> Certificate | None:
    """The tier's certificate, once it is sure that it applies here."""
    if tier.certificate is None:
        return None
    if len(config.tiers) != 2:
        raise ConfigError(
            f"a certificate is for two tiers, not {len(config.tiers)}; certify all as a whole with: corea eval ladder",
            field=f"tiers.{tier.name}.certificate",
        )
    certificate = load(tier.certificate)
    models, prompts = hashes_of(shapes_of(config).values())
    check_applies(
        certificate,
        models_hash=models,
        prompts_hash=prompts,
        signal=signal_of(tier.confidence),
        guards=labels(rules.guards),
        gate=rules.gate_label,
        source=str(tier.certificate),
    )
    return certificate


def _check_map(config: Config, tier: TierConfig) -> None:
    if tier.confidence.map is None:
        return
    models, prompts = hashes_of([shapes_of(config)[tier.name]])
    load_map(tier.confidence.map, model=models, prompt=prompts)


def _breaker(config: BreakerConfig) -> Breaker | None:
    if not config.enabled:
        return None
    settings = BreakerSettings(**config.model_dump(exclude={"enabled"}))
    return Breaker(settings, clock=time.monotonic, rng=random.Random())  # noqa: S311 - jitter, not secrets


def _tier(
    tier: TierConfig,
    model: Model,
    *,
    certificate: Certificate | None,
    rules: _Rules,
    breaker: Breaker | None,
    is_last: bool,
) -> Tier:
    return Tier(
        name=tier.name,
        model=model,
        # The last answer is final, so nobody pays to learn how sure it is.
        estimator=None if is_last else estimator_of(tier.confidence),
        threshold=None if is_last else tier.threshold,
        certificate=certificate,
        price=price_of(tier),
        timeout_s=tier.timeout_s,
        on_error=tier.on_error,
        max_tokens=tier.max_tokens,
        temperature=tier.temperature,
        system_prompt=tier.system_prompt,
        breaker=breaker,
        guards=rules.guards,
        gate=rules.gate,
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
            retry_budget=_budget(tier),
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
        retry_budget=_budget(tier),
        max_connections=tier.max_connections,
        extra_body=tier.extra_body,
        rng=random.Random(),  # noqa: S311 - jitter, not secrets
    )


def _budget(tier: OpenAITier | ProviderTier) -> RetryBudget:
    # aiohttp comes with it.
    from corea.models.retrying import RetryBudget

    return RetryBudget(share=tier.retry_share, reserve=tier.retry_reserve)


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
