"""What can be said of the audit in TOML, what becomes of it, and what is refused in words that help."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from corea.audit.plans import certificate_at, plans_of
from corea.audit.serving import auditor_of
from corea.audit.steps import Step
from corea.audit_config import AuditConfig
from corea.cascade import Cascade
from corea.config import parse
from corea.errors import ConfigError, InputError
from corea.ledger import Ledger
from corea.policy.certificate import Certificate, Certified, Promise, dump
from gateway.running import Kept, large, small

TIERS = """
[[tiers]]
name = "small"
kind = "openai"
base_url = "http://127.0.0.1:1/v1"
model = "s"
threshold = 0.8
[[tiers]]
name = "large"
kind = "openai"
base_url = "http://127.0.0.1:1/v1"
model = "l"
prices = { input = 10, output = 20 }
[audit]
"""


def complaint(lines: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(TIERS + lines, source="corea.toml")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def certificate(**thresholds: float | None) -> Certificate:
    promises = tuple(
        Promise(
            task=None if task == "all" else task,
            certified=Certified(
                threshold=threshold, tie_fraction=0.5, n=100, max_drop=0.02, delta=0.05, kept=50, harm=1, gain=0,
                drop=0.01, expected_saving=None, expected_deferral_rate=0.5, p_value=0.01,
            ),
        )
        for task, threshold in thresholds.items()
    )  # fmt: skip
    return Certificate(
        promises=promises, small="small", large="large", signal="logprob", models_hash="m", prompts_hash="p",
        data_hash="d", created_at="2026-01-01T00:00:00+00:00",
    )  # fmt: skip


def on(**more: Any) -> AuditConfig:
    return AuditConfig(**{"share": 0.1, "max_usd_per_day": 1.0, **more})


def test_without_a_word_nothing_is_audited() -> None:
    assert not parse(TIERS, source="x").audit.enabled


@pytest.mark.parametrize(
    "lines, told",
    [
        ("share = 1.5", "audit.share"),
        ("share = 0.1", "an audit without a cap can cost anything; set max_usd_per_day"),
        ('share = 0.1\nmax_usd_per_day = 1\nmeasure = "disagreement"', "set limit to max_drop and their share"),
        ("share = 0.1\nmax_usd_per_day = 1\nunsure_share = 0.5", "set both, or neither"),
        ("unsure_share = 0.5\nunsure_below = 0.9", "nothing is audited"),
        ("share = 0.1\nmax_usd_per_day = 1\nsteps = [0.9, 0.8]", "thresholds that rise"),
        ('webhook = "ftp://here"', "webhook is no web address"),
        ('webhook = "http://hooks.example/x"', "in the clear"),
        ("shares = 0.1", 'did you mean "share"?'),
    ],
)
def test_what_cannot_be_is_refused_in_a_line_that_says_what_to_do(lines: str, told: str) -> None:
    assert told in complaint(lines)


@pytest.mark.parametrize(
    "url", ["https://hooks.example/x", "http://127.0.0.1:9/x", "http://alerts:80/", "http://10.0.0.2"]
)
def test_a_webhook_is_encrypted_or_stays_in_this_network(url: str) -> None:
    found = on(webhook=url)
    assert found.webhook is not None
    assert found.webhook.get_secret_value() == url
    assert url not in repr(found) + str(found.model_dump(mode="json"))


def test_each_promise_that_keeps_anything_is_watched_to_its_own_limit() -> None:
    plans = plans_of(on(), threshold=None, certificate=certificate(maths=0.8, poems=None), tiers=2)
    [plan] = plans
    assert (plan.task, plan.limit, plan.min_propensity) == ("maths", 0.02, 0.1)
    certified, *higher = plan.steps
    assert certified == Step(threshold=0.8, tie_fraction=0.5)
    assert [step.threshold for step in higher] == pytest.approx([0.9, 0.95])


def test_steps_below_the_certified_threshold_are_none() -> None:
    [plan] = plans_of(on(steps=(0.5, 0.9)), threshold=None, certificate=certificate(all=0.8), tiers=2)
    assert plan.steps[1:] == (Step(threshold=0.9),)


def test_with_three_tiers_the_only_fall_back_is_to_defer() -> None:
    [plan] = plans_of(on(), threshold=None, certificate=certificate(all=0.8), tiers=3)
    assert len(plan.steps) == 1


def test_a_threshold_set_by_hand_needs_a_limit() -> None:
    with pytest.raises(ConfigError, match="nothing says how much harm is too much"):
        plans_of(on(), threshold=0.8, certificate=None, tiers=2)
    [plan] = plans_of(on(limit=0.03), threshold=0.8, certificate=None, tiers=2)
    assert (plan.task, plan.limit) == (None, 0.03)


def test_the_certificate_is_read_as_the_file_has_it(tmp_path: Path) -> None:
    dump(certificate(all=0.8), tmp_path / "c.json")
    assert certificate_at(tmp_path / "c.json") == certificate(all=0.8)
    assert certificate_at(None) is None


def served(lines: str, *, ledger: Any, **prices: Any) -> Any:
    config = parse(TIERS + lines, source="corea.toml")
    return auditor_of(config, Cascade((small(threshold=0.8), large(**prices)), ledger=ledger))


def test_an_audit_that_cannot_be_kept_or_paid_is_refused_at_the_start(tmp_path: Path) -> None:
    lines = "share = 0.1\nlimit = 0.02\nmax_usd_per_day = "
    assert served("share = 0", ledger=Kept()) is None
    with pytest.raises(ConfigError, match="set ledger.enabled = true"):
        served(lines + "1", ledger=Kept())
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}") as ledger:
        with pytest.raises(ConfigError, match='set the prices of tier "large"'):
            served(lines + "1", ledger=ledger, price=None)
        with pytest.raises(InputError, match="raise the audit's cap"):
            served(lines + "0.01", ledger=ledger)
        assert served(lines + "1", ledger=ledger) is not None
