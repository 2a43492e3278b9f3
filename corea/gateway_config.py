"""What can be said of the gateway in TOML, under ``[gateway]``. Knows no web framework."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from corea.errors import ConfigError


class ProfileConfig(BaseModel):
    """A way to use the cascade: ``model="corea:<name>"``. None leaves it to ``[cascade]`` and ``[[tiers]]``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    #: For every tier but the last, in place of its own threshold or certificate.
    threshold: float | None = Field(default=None, ge=0, le=1, allow_inf_nan=False)
    #: The questions' task, for a certificate by task.
    task: str | None = None
    #: What its requests go by, in place of their task's policy.
    policy: str | None = None
    deadline_s: float | None = Field(default=None, gt=0)
    on_exhausted: Literal["error", "best"] | None = None


class DashboardConfig(BaseModel):
    """Pages over the ledger at ``/dashboard``, with their own sign-in."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = False
    #: Name of the environment variable that holds the password. Only a gateway that needs no key may do without.
    password_env: str | None = Field(default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    #: Seconds after which one has to sign in again.
    session_s: float = Field(default=43200.0, ge=60, le=31_536_000)


class GatewayConfig(BaseModel):
    """The server in front of the cascade."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65535)
    #: Name of the environment variable that holds the one key clients need. Without it, only this machine may ask.
    api_key_env: str | None = Field(default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    #: Keys made by ``corea keys``, with their profiles and limits, instead of the one.
    virtual_keys: bool = False
    #: Requests that are worked on at once, and those that may wait for their turn. Beyond that: 429.
    max_active: int = Field(default=256, ge=1)
    max_queued: int = Field(default=256, ge=0)
    max_wait_s: float = Field(default=10.0, gt=0)
    max_body_bytes: int = Field(default=4 * 1024 * 1024, ge=1024)
    max_depth: int = Field(default=32, ge=4, le=512)
    max_messages: int = Field(default=2048, ge=1)
    max_choices: int = Field(default=16, ge=1)
    max_tools: int = Field(default=128, ge=0)
    #: Seconds for which an answer is kept for a client who sends the same Idempotency-Key again; 0 ignores the header.
    idempotency_s: float = Field(default=86400.0, ge=0)
    #: Seconds of silence after which a stream says that it is alive.
    keep_alive_s: float = Field(default=5.0, gt=0)
    #: Seconds that requests in progress get to finish after SIGTERM.
    drain_s: float = Field(default=30.0, ge=0)
    #: Seconds between "not ready" and the end of new connections, for a load balancer to notice.
    drain_notice_s: float = Field(default=0.0, ge=0)
    #: Whether answers carry the field ``corea``, which says what they cost and why they were kept.
    corea_body: bool = True
    #: What becomes of a request that the cascade cannot judge (tools, images, …): to a tier as it is, or refused.
    passthrough: Literal["relay", "refuse"] = "relay"
    #: How lines are logged: for a terminal, or one JSON object each.
    log_format: Literal["text", "json"] = "text"
    #: Whether OpenTelemetry spans are made. Where they go, the standard OTEL_* environment variables say.
    otel: bool = False
    dashboard: DashboardConfig = DashboardConfig()
    profiles: Mapping[str, ProfileConfig] = {}

    @model_validator(mode="after")
    def _one_kind_of_keys(self) -> Self:
        if self.virtual_keys and self.api_key_env is not None:
            raise ValueError("virtual_keys and api_key_env exclude each other; remove one")
        return self


def check_exposure(host: str, *, has_keys: bool) -> None:
    """Raise :class:`ConfigError` where anybody on the network could ask at our cost."""
    if has_keys or is_loopback(host):
        return
    raise ConfigError(
        f"{host} can be reached from other machines, and no key is needed; set gateway.virtual_keys or api_key_env, "
        "or listen on 127.0.0.1",
        field="gateway.host",
    )


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
