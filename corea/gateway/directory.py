"""What ``model`` may name: the cascade, a profile of it, or one tier. Knows no HTTP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from corea.cascade import NO_POLICIES, Cascade, Recorder
from corea.errors import ConfigError
from corea.gateway.auth import Caller
from corea.gateway.errors import ApiError
from corea.gateway_config import ProfileConfig
from corea.policy.base import Policies
from corea.tier import Sampling, Tier
from corea.types import Message, Usage

CASCADE = "corea"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What answers under a name. ``single``: one tier, asked for by its name."""

    name: str
    cascade: Cascade
    task: str | None = None
    policy: str | None = None
    single: bool = False

    @property
    def relays(self) -> Tier | None:
        """The tier that takes requests as they are: the last that can."""
        able = [tier for tier in self.cascade.tiers if hasattr(tier.model, "relay")]
        return able[-1] if able else None


class Directory:
    """Names in the order in which ``/v1/models`` lists them."""

    def __init__(self, targets: Mapping[str, Target]) -> None:
        self._targets = dict(targets)

    @classmethod
    def of(cls, cascade: Cascade, profiles: Mapping[str, ProfileConfig], ledger: Recorder | None) -> Directory:
        """The cascade, its profiles and its tiers, all over the same models; closing them stays with ``cascade``.

        Raises :class:`ConfigError` for a tier whose name is taken.
        """
        targets = {CASCADE: Target(name=CASCADE, cascade=_like(cascade, cascade.tiers, ledger))}
        for name, profile in profiles.items():
            tiers = cascade.tiers if profile.threshold is None else _held_to(cascade.tiers, profile.threshold)
            like = _like(cascade, tiers, ledger, profile)
            label = f"{CASCADE}:{name}"
            targets[label] = Target(name=label, cascade=like, task=profile.task, policy=profile.policy)
        for tier in cascade.tiers:
            if tier.name in targets:
                raise ConfigError(f'a tier cannot be called "{tier.name}": clients name the cascade so; rename it')
            alone = replace(tier, threshold=None, certificate=None, estimator=None)
            like = _like(cascade, [alone], ledger, policies=NO_POLICIES)
            targets[tier.name] = Target(name=tier.name, cascade=like, single=True)
        return cls(targets)

    def find(self, name: str, caller: Caller) -> Target:
        """Raises :class:`ApiError`: 404 for no such name, 403 for one that the caller may not use."""
        target = self._targets.get(name)
        if target is None:
            message = f"there is no model {name[:100]!r} here; there are: {', '.join(self.names(caller))}"
            raise ApiError(message, status=404, param="model", code="model_not_found")
        if not caller.may_use(name):
            message = f"this key may not use the model {name!r}"
            raise ApiError(message, status=403, param="model", code="model_not_allowed")
        return target

    def names(self, caller: Caller) -> list[str]:
        return [name for name in self._targets if caller.may_use(name)]


def _held_to(tiers: tuple[Tier, ...], threshold: float) -> list[Tier]:
    return [*(replace(tier, threshold=threshold, certificate=None) for tier in tiers[:-1]), tiers[-1]]


def _like(
    cascade: Cascade,
    tiers: tuple[Tier, ...] | list[Tier],
    ledger: Recorder | None,
    profile: ProfileConfig | None = None,
    policies: Policies | None = None,
) -> Cascade:
    return Cascade(
        tiers,
        deadline_s=(profile and profile.deadline_s) or cascade.deadline_s,
        on_exhausted=(profile and profile.on_exhausted) or cascade.on_exhausted,
        ledger=ledger,
        policies=cascade.policies if policies is None else policies,
        fingerprint=cascade.fingerprint,
        prices_version=cascade.prices_version,
    )


def expected(tiers: Sequence[Tier], messages: Sequence[Message], sampling: Sampling) -> tuple[int, int]:
    """Tokens and nano-USD that a request may come to if every tier is asked once. A guess: four characters a token."""
    prompt = sum(len(message.content) // 4 + 8 for message in messages)
    tokens = nano_usd = 0
    for tier in tiers:
        completion = tier.max_tokens if sampling.max_tokens is None else sampling.max_tokens
        tokens += prompt + completion
        nano_usd += tier.cost_nano_usd(Usage(prompt_tokens=prompt, completion_tokens=completion)) or 0
    return tokens, nano_usd
