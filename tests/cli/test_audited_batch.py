"""``[audit]`` and the command line: a batch is audited as a gateway is, and what is not audited says so."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.test_audit import Corea, corea
from cli.test_cli import config_for
from corea.ledger import Ledger, audits
from corea.ledger.audits import AlarmRow
from faults.endpoint import FaultyEndpoint, served_from_a_thread

AUDIT = '[ledger]\nurl = "sqlite:///ledger.db"\n[audit]\nshare = 1.0\nmax_usd_per_day = 100\nlimit = 0.5\n'
QUESTIONS = 6
#: The fixture, which goes to a folder of its own and runs the command in this process.
__all__ = ["corea"]


@pytest.fixture
def endpoint() -> Iterator[FaultyEndpoint]:
    with served_from_a_thread() as served:
        yield served


@pytest.fixture
def here(corea: Corea, tmp_path: Path, endpoint: FaultyEndpoint) -> Path:
    (tmp_path / "corea.toml").write_text(AUDIT + config_for(endpoint))
    lines = [json.dumps({"id": n, "question": f"{n}?"}) for n in range(QUESTIONS)]
    (tmp_path / "in.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_a_batch_sends_kept_answers_to_the_last_tier_too_and_says_so(
    corea: Corea, here: Path, endpoint: FaultyEndpoint
) -> None:
    done = corea("batch", "in.jsonl", "out.jsonl", "--json")
    assert done.code == 0, done.stderr
    assert f"{QUESTIONS} kept answers were audited ({QUESTIONS} agreed, 0 differed, 0 unknown) for $" in done.stderr
    # Each once by the small tier, and once by the last one for the audit: that is in no row's cost.
    assert len(endpoint.requests) == 2 * QUESTIONS
    with Ledger.open(f"sqlite:///{here / 'ledger.db'}") as ledger:
        costs = audits.costs(ledger)
    assert (costs.audits, costs.unknown) == (QUESTIONS, 0)
    assert costs.cost_nano_usd == QUESTIONS * 10_000 * (25 + 12)
    told = json.loads(done.stdout)
    assert told["cost_nano_usd"] == QUESTIONS * 1_000 * (25 + 12)


def test_a_batch_goes_by_an_alarm_that_is_open(corea: Corea, here: Path) -> None:
    row = AlarmRow(
        id="a1", name="audit", task="", epoch=0, raised_at_unix_s=1.7e9, text="harm", limit=0.5, low=0.6, high=0.9,
        audited=64, step_before=0.9, step_after=None,
    )  # fmt: skip
    with Ledger.open(f"sqlite:///{here / 'ledger.db'}") as ledger:
        audits.raise_alarm(ledger, row)
    done = corea("batch", "in.jsonl", "out.jsonl", "--json")
    assert done.code == 0, done.stderr
    assert json.loads(done.stdout)["deferral_rate"] == 1.0


def test_an_audit_that_cannot_be_done_stops_a_batch_before_it_costs(
    corea: Corea, here: Path, endpoint: FaultyEndpoint
) -> None:
    config = (here / "corea.toml").read_text()
    (here / "corea.toml").write_text(config.replace("limit = 0.5\n", ""))
    done = corea("batch", "in.jsonl", "out.jsonl")
    assert done.code == 1
    assert "nothing says how much harm is too much" in done.stderr
    assert not endpoint.requests


def test_ask_says_that_it_is_not_audited(corea: Corea, here: Path, endpoint: FaultyEndpoint) -> None:
    done = corea("ask", "6 × 7?")
    assert done.code == 0
    assert "corea ask is not audited, and knows nothing of open alarms" in done.stderr
    assert len(endpoint.requests) == 1
