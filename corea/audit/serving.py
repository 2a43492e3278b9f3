"""Configuration and cascade → an auditor for a process that serves or works off a batch, or none. Asks no model."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from corea.audit.auditor import Auditor
from corea.audit.plans import plans_of
from corea.audit.policy import joined
from corea.cascade import Cascade
from corea.config import Config
from corea.errors import ConfigError
from corea.ledger.writer import Ledger

logger = logging.getLogger("corea.audit")


def auditor_of(config: Config, cascade: Cascade, *, drain_s: float | None = None) -> Auditor | None:
    """None where auditing is off. ``drain_s``: default, the gateway's.

    Raises :class:`ConfigError`, :class:`InputError` for an audit that cannot be done.
    """
    if not config.audit.enabled:
        return None
    if not isinstance(cascade.ledger, Ledger):
        raise ConfigError("what was audited is kept in the ledger; set ledger.enabled = true", field="audit.share")
    if len(cascade.tiers) < 2:
        raise ConfigError("with one tier there is nothing to compare it with; set share = 0", field="audit.share")
    first, last = cascade.tiers[0], cascade.tiers[-1]
    plans = plans_of(
        config.audit, threshold=first.threshold, certificate=first.certificate, tiers=len(cascade.tiers)
    )  # fmt: skip
    if not plans:
        logger.warning("the certificate keeps nothing, so there is nothing to audit")
    drain_s = config.gateway.drain_s if drain_s is None else drain_s
    return Auditor(last, cascade.ledger, config.audit, plans, first=first.name, drain_s=drain_s)


@asynccontextmanager
async def audited(config: Config, cascade: Cascade) -> AsyncIterator[Auditor | None]:
    """The cascade, audited as a gateway's is while this is open; all audits have ended when it closes.

    Where it is broken off, those in progress count as unknown. Raises what :func:`auditor_of` does.
    """
    auditor = auditor_of(config, cascade, drain_s=0.0)
    if auditor is None:
        yield None
        return
    ledger, policies = cascade.ledger, cascade.policies
    cascade.ledger, cascade.policies = auditor.over(ledger), joined(policies, auditor.policy)
    try:
        async with auditor:
            yield auditor
            await auditor.caught_up()
    finally:
        cascade.ledger, cascade.policies = ledger, policies
