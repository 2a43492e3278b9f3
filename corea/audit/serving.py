"""Configuration and cascade → an auditor for a process that serves, or none. Asks no model and reads no ledger."""

from __future__ import annotations

import logging

from corea.audit.auditor import Auditor
from corea.audit.plans import plans_of
from corea.cascade import Cascade
from corea.config import Config
from corea.errors import ConfigError
from corea.ledger.writer import Ledger

logger = logging.getLogger("corea.audit")


def auditor_of(config: Config, cascade: Cascade) -> Auditor | None:
    """None where auditing is off. Raises :class:`ConfigError`, :class:`InputError` for an audit that cannot be done."""
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
    drain_s = config.gateway.drain_s
    return Auditor(last, cascade.ledger, config.audit, plans, first=first.name, drain_s=drain_s)
