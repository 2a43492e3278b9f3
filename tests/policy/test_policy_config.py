"""Policies in TOML: what is accepted, the one line that each mistake gets, and what is built of it."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from corea import Cascade
from corea.build import policies_of
from corea.config import Config, parse
from corea.errors import ConfigError, InputError
from corea.identity import fingerprint
from corea.policy.budget import Budget
from corea.policy.hours import LedgerHours
from corea.policy.latency import Latency
from corea.policy.spent import Counted
from corea.types import Request

TIERS = """
[[tiers]]
name = "small"
kind = "openai"
base_url = "http://127.0.0.1:1/v1"
model = "s"
threshold = 0.9
confidence = { estimator = "logprob" }
prices = { input = 1, output = 1 }

[[tiers]]
name = "large"
kind = "openai"
base_url = "http://127.0.0.1:1/v1"
model = "l"
prices = { input = 9, output = 9 }
"""
THRIFTY = "[policies.thrifty.budget]\nusd = 20\n"
EXAM = '[policies.exam.critical]\nestimator = "p_true"\nthreshold = 0.8\n'


def config(text: str, tiers: str = TIERS) -> Config:
    return parse(text + tiers, source="corea.toml")


def mistake(text: str, tiers: str = TIERS) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        policies_of(config(text, tiers))
    assert "\n" not in str(caught.value)
    return caught.value


def test_policies_are_named_and_given_to_tasks_profiles_and_all_others() -> None:
    text = (
        '[cascade]\npolicy = "thrifty"\n[tasks]\nfinals = "exam"\n[gateway.profiles.quick]\npolicy = "quick"\n'
        '[policies.quick]\nselectable = true\nlatency = { p95_s = 3, may = ["skip"] }\n' + THRIFTY + EXAM
    )
    found = policies_of(config(text))
    assert {name: [one.name for one in policies] for name, policies in found.named.items()} == {
        "quick": ["latency"],
        "thrifty": ["budget"],
        "exam": ["critical"],
    }
    assert (found.default, dict(found.by_task)) == ("thrifty", {"finals": "exam"})
    assert found.selectable == {"quick"}
    (budget,), (latency,) = found.named["thrifty"], found.named["quick"]
    assert isinstance(budget, Budget)
    assert (budget.nano_usd, budget.per, budget.label) == (20 * 10**9, "day", "policies.thrifty")
    assert isinstance(budget._spent, Counted)
    assert isinstance(latency, Latency)
    assert latency.p95_s == 3


def test_hedging_is_done_only_where_it_is_named() -> None:
    text = '[policies.a]\nlatency = { p95_s = 3 }\n[policies.b]\nlatency = { p95_s = 3, may = ["skip", "hedge"] }\n'
    found = policies_of(config(text)).named
    assert [isinstance(one, Latency) and one.may_hedge for name in "ab" for one in found[name]] == [False, True]


@pytest.mark.parametrize(
    "text,field,words",
    [
        ('[cascade]\npolicy = "thirfty"\n' + THRIFTY, "cascade.policy", 'no policy "thirfty"; add [policies.thirfty]'),
        ('[tasks]\nfinals = "exam"\n', "tasks.finals", "or name one of: none"),
        ('[gateway.profiles.a]\npolicy = "b"\n', "gateway.profiles.a.policy", 'there is no policy "b"'),
        ("[policies.a.budget]\nusd = 0\n", "policies.a.budget", "a budget of 0 pays for no answer; raise usd"),
        ("[policies.a.budget]\nusd = -3\n", "policies.a.budget", "a budget of -3 pays for no answer"),
        ("[policies.a.budget]\nusd = inf\n", "policies.a.budget.usd", "number"),
        ('[policies.a.budget]\nusd = 1\nper = "week"\n', "policies.a.budget.per", "'hour' or 'day', not 'week'"),
        ("[policies.a.latency]\np95_s = 0\n", "policies.a.latency.p95_s", "greater than 0"),
        ("[policies.a.latency]\np95_s = 1\nmay = []\n", "policies.a.latency.may", "at least 1"),
        ("[policies.a]\ncertified = true\n", "policies.a", "no tier has a certificate; make one with: corea certify"),
        ("[policies.a]\ncertified = false\n", "policies.a", "gives a promise up for nothing"),
        ("[policies.a]\nbudgett = 3\n", "policies.a.budgett", 'did you mean "budget"?'),
        ('[policies."a b"]\n', "policies", "pattern"),
        ("[ledger]\nenabled = false\n" + THRIFTY, "policies.thrifty", "set ledger.enabled = true"),
        ('[cascade]\non_exhausted = "best"\n' + EXAM, "policies.exam", "hands out what was not confirmed"),
        (EXAM.replace("p_true", "fitted"), "policies.exam.critical", "needs a map"),
        (EXAM.replace("p_true", "gate"), "policies.exam.critical", "made by: corea eval gate"),
        (EXAM.replace("p_true", "logprob"), "policies.exam.critical", "both are read from the reply's probabilities"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_field_and_the_mend(text: str, field: str, words: str) -> None:
    error = mistake(text)
    assert (error.field or "").startswith(field)
    assert words in str(error)


def test_a_budget_needs_to_know_what_things_cost() -> None:
    error = mistake(THRIFTY, TIERS.replace("prices = { input = 9, output = 9 }\n", ""))
    assert '"large" has none; give it prices' in str(error)


def test_one_tier_leaves_a_policy_nothing_to_choose() -> None:
    assert "there is only one" in str(mistake(EXAM, TIERS[TIERS.rindex("[[tiers]]") :]))


def test_a_second_signal_that_the_reply_would_have_to_be_asked_for_is_refused() -> None:
    tiers = TIERS.replace('estimator = "logprob"', 'estimator = "p_true"')
    error = mistake(EXAM.replace("p_true", "logprob"), tiers)
    assert "make it the tier's own signal, and name another one here" in str(error)


def test_a_stated_confidence_as_the_second_signal_is_asked_for_in_a_second_turn() -> None:
    (critical,) = policies_of(config(EXAM.replace("p_true", "verbalized"))).named["exam"]
    assert critical._second.estimator.ask == "followup"  # type: ignore[attr-defined]


def test_a_gate_that_is_missing_is_told_as_such() -> None:
    text = EXAM.replace('"p_true"', '"gate"\ngate = "no.gate"')
    assert "cannot be read" in str(mistake(text))


def test_files_are_taken_from_the_configurations_folder() -> None:
    text = EXAM.replace('"p_true"', '"gate"\ngate = "my.gate"')
    critical = config(text).beside(Path("/etc/corea")).policies["exam"].critical
    assert critical is not None
    assert critical.gate == Path("/etc/corea/my.gate")


def test_policies_are_part_of_what_a_trace_was_made_by_and_without_any_nothing_changes() -> None:
    plain = fingerprint(config(""))
    with_one = fingerprint(config(THRIFTY))
    assert len({plain, with_one, fingerprint(config(THRIFTY.replace("20", "21")))}) == 3
    assert fingerprint(config('[tasks]\nfinals = "thrifty"\n' + THRIFTY)) != with_one


def test_without_a_certificate_there_is_nothing_to_warn_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        found = policies_of(config("[policies.a]\ncertified = false\n[policies.a.budget]\nusd = 1\n"))
    assert ([one.name for one in found.named["a"]], caplog.text) == (["budget"], "")


def test_a_budget_of_nothing_is_refused_by_the_library_as_well() -> None:
    with pytest.raises(InputError, match="give it an amount, or leave it out"):
        Budget(nano_usd=0, per="day", tiers=("a", "b"), spent=Counted(), wall_clock=lambda: 0.0)


def test_a_cascade_from_a_file_counts_its_budget_in_the_ledger(tmp_path: Path) -> None:
    loaded = config(f'[cascade]\npolicy = "thrifty"\n[ledger]\nurl = "sqlite:///{tmp_path / "l.db"}"\n' + THRIFTY)
    with Cascade.from_config(loaded) as cascade:
        (budget,) = cascade.policies.of(Request.of("6 × 7?"))
        assert isinstance(budget, Budget)
        assert isinstance(budget._spent, LedgerHours)
        assert budget._spent.hours() == {}
