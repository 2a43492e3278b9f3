"""What can be said of the audit in TOML, under ``[audit]``. Knows no tiers, and no money but the day's cap."""

from __future__ import annotations

import ipaddress
from itertools import pairwise
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

Measure = Literal["drop", "disagreement"]


class AuditConfig(BaseModel):
    """A share of kept answers is also sent to the last tier, in the background (docs/audit.md)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    #: Of kept answers; 0 turns the audit off.
    share: float = Field(default=0.0, ge=0, le=1, allow_inf_nan=False)
    #: Of those whose confidence is below ``unsure_below``.
    unsure_share: float | None = Field(default=None, gt=0, le=1, allow_inf_nan=False)
    unsure_below: float | None = Field(default=None, ge=0, le=1, allow_inf_nan=False)
    #: For all replicas on one ledger together. When it is spent, auditing pauses until the next day (UTC).
    max_usd_per_day: float | None = Field(default=None, gt=0, le=10**6, allow_inf_nan=False)
    #: The mean harm that must not be passed. Default: the certificate's max_drop.
    limit: float | None = Field(default=None, ge=0, lt=1, allow_inf_nan=False)
    #: The risk of a false alarm, ever, and that the bounds miss, ever.
    delta: float = Field(default=0.05, gt=0, lt=1, allow_inf_nan=False)
    measure: Measure = "drop"
    #: Thresholds to fall back to, rising. Default: half, then three quarters of the way from the certified one to 1.
    steps: tuple[float, ...] | None = None
    #: Where alarms are sent, as JSON. May hold a secret, so it is not printed.
    webhook: SecretStr | None = None
    #: Draws the lots; the same in all replicas, and nobody else's to know.
    seed: SecretStr = SecretStr("")
    #: Audits that run at once, and the seconds that one may take.
    concurrency: int = Field(default=4, ge=1, le=64)
    deadline_s: float = Field(default=120.0, gt=0, le=3600)

    @property
    def enabled(self) -> bool:
        return self.share > 0

    @field_validator("webhook")
    @classmethod
    def _is_a_web_address(cls, url: SecretStr | None) -> SecretStr | None:
        if url is None:
            return None
        parts = urlsplit(url.get_secret_value())
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.fragment:
            raise ValueError("webhook is no web address; write https://HOST/PATH")
        if parts.scheme == "http" and not _stays_here(parts.hostname):
            raise ValueError("webhook would send alarms in the clear; write https://, or an address of this network")
        return url

    @field_validator("steps")
    @classmethod
    def _rise(cls, steps: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if steps and (not all(0 < one <= 1 for one in steps) or any(one >= two for one, two in pairwise(steps))):
            raise ValueError("steps are thresholds that rise, each above 0 and at most 1; order them so")
        return steps

    @model_validator(mode="after")
    def _can_be_done(self) -> Self:
        if (self.unsure_share is None) != (self.unsure_below is None):
            raise ValueError("unsure_share is of answers below unsure_below; set both, or neither")
        if self.enabled and self.max_usd_per_day is None:
            raise ValueError("an audit without a cap can cost anything; set max_usd_per_day")
        if self.enabled and self.measure == "disagreement" and self.limit is None:
            raise ValueError(
                "some disagreements cost nothing, and only you know how many; set limit to max_drop and their share "
                "(docs/audit.md)"
            )
        if not self.enabled and self.unsure_share is not None:
            raise ValueError("with share = 0 nothing is audited; set a share above 0, or remove unsure_share")
        return self


def _stays_here(host: str) -> bool:
    """A private address, or a name without dots: of this machine, or of the cluster's own network."""
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return "." not in host or host.endswith((".local", ".internal", ".svc"))
