"""``corea audit`` and ``corea certify --from-ledger``: what they print, what they change, and what they never do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from corea.cli import main
from corea.config import Config
from corea.evaluate.outcomes import CONFIDENCE, write
from corea.identity import fingerprint
from corea.ledger import Ledger, audits
from corea.ledger.audits import AlarmRow, AuditRow
from corea.policy.certificate import load
from corea.types import Attempt, Confidence, Decision, Reason, Request, Trace

CONFIG = """
[[tiers]]
name = "small"
kind = "openai"
base_url = "http://127.0.0.1:1/v1"
model = "s"
threshold = 0.8
prices = { input = 1, output = 2 }
[[tiers]]
name = "large"
kind = "openai"
base_url = "http://127.0.0.1:1/v1"
model = "l"
prices = { input = 10, output = 20 }
[ledger]
url = "sqlite:///ledger.db"
[audit]
share = 0.5
max_usd_per_day = 1
limit = 0.02
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    code: int
    stdout: str
    stderr: str


Corea = Callable[..., Done]


@pytest.fixture
def corea(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Corea:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")
    Path("corea.toml").write_text(CONFIG)

    def run(*args: str) -> Done:
        monkeypatch.setattr("sys.argv", ["corea", *args])
        code = 0
        try:
            main()
        except SystemExit as exc:
            code = int(exc.code or 0)
        printed = capsys.readouterr()
        return Done(code=code, stdout=printed.out, stderr=printed.err)

    return run


def attempt(tier: str, *, keep: bool, confidence: float | None, cost: int) -> Attempt:
    reason = Reason.LAST_TIER if tier == "large" else Reason.CONFIDENT if keep else Reason.BELOW_THRESHOLD
    return Attempt(
        tier=tier, model=tier, decision=Decision(keep=keep, reason=reason, threshold=0.8),
        confidence=Confidence(value=confidence, source="logprob"), text="It is 42.\nAnswer: 42", answer="42",
        finish_reason="stop", cost_nano_usd=cost,
    )  # fmt: skip


def recorded(count: int = 400) -> None:
    """Questions that were kept from 0.8, all of the fair sample; the models differ where confidence is below 0.3."""
    shape = fingerprint(Config.load("corea.toml"))
    rows: list[AuditRow] = []
    traces: list[Trace] = []
    for i in range(count):
        sure = (i * 37 % 101) / 101
        kept = sure >= 0.8
        small = attempt("small", keep=kept, confidence=sure, cost=1)
        tried = (small,) if kept else (small, attempt("large", keep=True, confidence=None, cost=20_000))
        traces.append(
            Trace(
                id=f"t{i:04}", request=Request.of(f"What is {i}?", task="maths"), attempts=tried, final=len(tried) - 1,
                started_at_unix_s=1.7e9 + i, elapsed_s=1.0, cost_nano_usd=1, baseline_nano_usd=20, fingerprint=shape,
            )
        )  # fmt: skip
        rows.append(
            AuditRow(
                trace_id=f"t{i:04}", task="", epoch=0, bar=0.8, state="done" if kept else "deferred", propensity=0.5,
                day=1, asked_at_unix_s=1.7e9, uniform=True, agrees=sure >= 0.3, cost_nano_usd=20_000 if kept else None,
            )
        )  # fmt: skip

    async def keep(ledger: Ledger) -> None:
        await asyncio.gather(*(ledger.write(trace) for trace in traces))

    with Ledger.open("sqlite:///ledger.db") as ledger:
        asyncio.run(keep(ledger))
        audits.add(ledger, rows)


def alarm(task: str = "") -> None:
    row = AlarmRow(
        id="a1", name="audit", task=task, epoch=0, raised_at_unix_s=1.7e9, text="harm has passed 2 %", limit=0.02,
        low=0.03, high=0.2, audited=64, step_before=0.8, step_after=0.9,
    )  # fmt: skip
    with Ledger.open("sqlite:///ledger.db") as ledger:
        audits.raise_alarm(ledger, row)


def test_status_tells_bounds_cost_step_and_alarms(corea: Corea) -> None:
    recorded(40)
    shown = corea("audit", "status")
    assert shown.code == 0, shown.stderr
    assert [line.split()[:2] for line in shown.stdout.splitlines()[:2]] == [["task", "state"], ["all", "ok"]]
    assert "8 audits cost $0.000160; that is in no answer's cost" in shown.stdout
    alarm()
    told = json.loads(corea("audit", "status", "--json").stdout)
    [task] = told["tasks"]
    assert (task["task"], task["state"], task["threshold"], task["epoch"]) == ("all", "alarm", 0.9, 1)
    assert [one["id"] for one in told["alarms"]] == ["a1"]
    assert "to go back: corea audit approve all" in corea("audit", "status").stdout


def test_the_ledgers_summary_tells_what_audits_cost_beside_the_sum(corea: Corea) -> None:
    recorded(40)
    shown = corea("ledger", "summary")
    assert shown.code == 0, shown.stderr
    assert "beside it, 8 audits cost $0.000160; see: corea audit status" in shown.stderr
    assert "audits" not in corea("ledger", "summary", "--since", "1h").stderr


def test_approve_goes_back_to_the_certified_step_and_says_who_did(corea: Corea) -> None:
    recorded(5)
    alarm("maths")
    done = corea("audit", "approve", "maths", "--by", "ann")
    assert (done.code, done.stdout) == (0, 'task "maths": back to the certified step (1 alarms cleared)\n')
    again = corea("audit", "approve", "maths")
    assert again.code == 1
    assert 'no alarm of task "maths" is open' in again.stderr
    with Ledger.open("sqlite:///ledger.db") as ledger:
        assert [row.approved_by for row in audits.list_alarms(ledger)] == ["ann"]


def test_where_auditing_is_off_status_says_how_to_turn_it_on(corea: Corea) -> None:
    Path("corea.toml").write_text(CONFIG.replace("share = 0.5", "share = 0"))
    shown = corea("audit", "status")
    assert shown.code == 1
    assert "auditing is off; set a share above 0" in shown.stderr


def test_the_ledger_proposes_a_certificate_and_changes_nothing(corea: Corea) -> None:
    recorded()
    before = Path("corea.toml").read_bytes()
    done = corea("certify", "--from-ledger", "--out", "proposed.json", "--max-drop", "0.05")
    assert done.code == 0, done.stderr
    assert "400 questions, a fair sample of the ledger's" in done.stdout
    assert "Proposed in proposed.json. Nothing has changed" in done.stdout
    assert "threshold                0.8 → " in done.stdout
    [promise] = load(Path("proposed.json")).promises
    # Both models agree from 0.3: it may be lowered as far as a little below that.
    assert promise.certified.threshold is not None
    assert 0.2 < promise.certified.threshold < 0.35
    assert promise.certified.n == 400
    assert Path("corea.toml").read_bytes() == before


def test_a_proposal_fits_the_configuration_it_was_made_for(corea: Corea) -> None:
    recorded()
    assert corea("certify", "--from-ledger", "--out", "c.json", "--max-drop", "0.05").code == 0
    from corea.build import tiers_of

    certified = CONFIG.replace("threshold = 0.8", 'certificate = "c.json"')
    Path("corea.toml").write_text(certified)
    assert tiers_of(Config.load("corea.toml"))[0].certificate == load(Path("c.json"))
    refused = corea("certify", "--from-ledger", "--out", "c.json")
    assert "is one of the inputs" in refused.stderr


@pytest.mark.parametrize(
    "args, told",
    [
        (["--from-ledger", "x.parquet"], "--from-ledger goes by the configuration"),
        (["--from-ledger", "--since", "soon"], "--since"),
        (["--since", "3d", "x.parquet"], "add --from-ledger"),
        ([], "there is nothing to certify"),
    ],
)
def test_what_does_not_go_together_is_refused(corea: Corea, args: list[str], told: str) -> None:
    recorded(1)
    refused = corea("certify", "--out", "c.json", *args)
    assert (refused.code, refused.stdout) == (1, "")
    assert told in refused.stderr
    assert not Path("c.json").exists()


def outcomes(path: str, *, shift: float = 0.0) -> None:
    rows: list[dict[str, Any]] = []
    for i in range(400):
        sure = min(1.0, (i * 37 % 101) / 101 + shift)
        common = {"id": f"q{i}", "task": "maths", "question": f"What is {i}?", "correct": 1.0}
        rows += [{**common, "tier": "small", CONFIDENCE + "logprob": sure}, {**common, "tier": "large"}]
    write(Path(path), rows, metadata={"tiers": ["small", "large"], "data_hash": "d"}, signals=["logprob"])


def test_drift_finds_a_confidence_that_has_moved_and_nothing_where_nothing_has(corea: Corea) -> None:
    recorded()
    outcomes("same.parquet")
    outcomes("other.parquet", shift=0.2)
    args = ("audit", "drift", "--since", "9999w", "--json", "--against")
    same = json.loads(corea(*args, "same.parquet").stdout)
    assert (same["now"], {one["what"]: one["differs"] for one in same["findings"]}["confidence"]) == (400, False)
    other = json.loads(corea(*args, "other.parquet").stdout)
    assert [one["what"] for one in other["findings"] if one["differs"]] == ["confidence"]
    shown = corea("audit", "drift", "--since", "9999w", "--against", "other.parquet")
    assert "has changed" in shown.stdout
