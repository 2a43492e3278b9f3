"""What is to be watched, from the configuration and the certificate in force. Reads no ledger and asks no model."""

from __future__ import annotations

from pathlib import Path

from corea.audit.sampler import Sampler
from corea.audit.steps import Step
from corea.audit.watch import Plan
from corea.audit_config import AuditConfig
from corea.errors import ConfigError
from corea.policy.certificate import Certificate, load
from corea.policy.ladder_certificate import is_ladder
from corea.policy.ladder_certificate import load as load_ladder

#: Where nobody named steps: so far on the way from the certified threshold to 1.
_WAY = (0.5, 0.75)


def sampler_of(settings: AuditConfig) -> Sampler:
    return Sampler(
        share=settings.share, seed=settings.seed.get_secret_value(), unsure_share=settings.unsure_share,
        unsure_below=settings.unsure_below or 0.0,
    )  # fmt: skip


def plans_of(
    settings: AuditConfig, *, threshold: float | None, certificate: Certificate | None, tiers: int
) -> tuple[Plan, ...]:
    """One for each promise that keeps anything; one for all tasks where the threshold was set by hand.

    ``threshold`` and ``certificate`` are the first tier's. With more than two tiers there is no step between the
    certified thresholds and always deferring. Raises :class:`ConfigError` where nothing says what the limit is.
    """
    if certificate is None:
        if threshold is None:
            return ()
        if settings.limit is None:
            raise ConfigError(
                "nothing says how much harm is too much, as the tier has no certificate; set it, e.g. 0.02",
                field="audit.limit",
            )
        return (_plan(settings, None, Step(threshold=threshold), settings.limit, tiers),)
    found = []
    for promise in certificate.promises:
        held = promise.certified
        if held.threshold is None:
            continue
        step = Step(threshold=held.threshold, tie_fraction=held.tie_fraction)
        limit = held.max_drop if settings.limit is None else settings.limit
        found.append(_plan(settings, promise.task, step, limit, tiers))
    return tuple(found)


def certificate_at(path: Path | None) -> Certificate | None:
    """The first tier's, as the file has it: whether it applies to these models is for the cascade to say.

    Raises :class:`InputError` for one that is missing or damaged.
    """
    if path is None:
        return None
    return load_ladder(path).of_tier(0) if is_ladder(path) else load(path)


def _plan(settings: AuditConfig, task: str | None, certified: Step, limit: float, tiers: int) -> Plan:
    at = certified.threshold or 0.0
    higher = settings.steps if settings.steps is not None else tuple(at + way * (1 - at) for way in _WAY)
    steps = (certified, *(Step(threshold=one) for one in higher if one > at)) if tiers == 2 else (certified,)
    return Plan(
        task=task, limit=limit, delta=settings.delta, min_propensity=sampler_of(settings).min_propensity,
        measure=settings.measure, steps=steps,
    )  # fmt: skip
