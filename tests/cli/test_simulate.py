"""``corea simulate`` on the command line: what it prints, what it writes, and how it refuses."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from corea.cli import main
from corea.evaluate.outcomes import CONFIDENCE, write
from corea.ledger.writer import Ledger
from corea.policy.certificate import Certificate, Certified, Promise, dump
from corea.types import Trace
from simulate.traffic_samples import Said, past

SMALL, LARGE = 10_000, 100_000
#: All large answers cost the same here, so the interval is a point.
_COST, _MORE = ("($0.004400", "to", "$0.004400)"), ("(+$0.002000", "to", "+$0.002000)")


@pytest.fixture
def corea(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs the command in this process, in the test's own folder: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")

    def run(*args: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["corea", "simulate", *args])
        code = 0
        try:
            main()
        except SystemExit as exc:
            code = int(exc.code or 0)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


@pytest.fixture
def ledger(tmp_path: Path) -> str:
    """Forty requests at a threshold of 0.5: half are kept at 0.7, half deferred at 0.3, an hour apart from 2026."""
    made: list[Trace] = []
    for i in range(40):
        said = {"small": Said(confidence=0.7 if i % 2 else 0.3, cost=SMALL), "large": Said(cost=LARGE)}
        made.append(past(said, [0.5], id=f"t{i}", task="ab"[i % 4 // 2], at_s=1_767_225_600.0 + 3600 * i).trace)

    async def store() -> None:
        ledger = Ledger.open(f"sqlite:///{tmp_path / 'l.db'}")
        for one in made:
            await ledger.write(one)
        await ledger.aclose()

    asyncio.run(store())
    return f"sqlite:///{tmp_path / 'l.db'}"


def outcomes(file: str = "o.parquet") -> str:
    rows: list[dict[str, Any]] = []
    for i in range(10):
        one = {
            "id": f"q{i}",
            "task": "t",
            "question": f"question {i}",
            "text": "Answer: 7",
            "answer": "7",
            "kind": "number",
        }
        rows.append(
            {**one, "tier": "small", "correct": float(i > 3), "cost_nano_usd": SMALL, CONFIDENCE + "logprob": i / 10}
        )
        rows.append({**one, "tier": "large", "correct": 1.0, "cost_nano_usd": LARGE})
    write(Path(file), rows, metadata={"tiers": ["small", "large"], "data_hash": "d"}, signals=("logprob",))
    return file


def certificate(file: str = "c.json", *, threshold: float | None = 0.5, signal: str = "verbalized") -> str:
    made = Certified(
        threshold=threshold, tie_fraction=1.0, n=100, max_drop=0.02, delta=0.05, kept=50, harm=0, gain=0, drop=0.0,
        expected_saving=0.4, expected_deferral_rate=0.5, p_value=0.01,
    )  # fmt: skip
    dump(
        Certificate(
            promises=(Promise(certified=made),), small="small", large="large", signal=signal, models_hash=None,
            prompts_hash=None, data_hash="d", created_at="2026-01-01T00:00:00+00:00",
        ),
        Path(file),
    )  # fmt: skip
    return file


def total(told: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(told)["total"]
    return found


def test_the_threshold_in_use_changes_nothing(corea: Any, ledger: str) -> None:
    code, told, _ = corea("--ledger", ledger, "--threshold", "small=0.5", "--json")
    assert code == 0
    found = total(told)
    assert found["was"]["cost"] == found["would"]["cost"]
    assert found["would"]["cost"]["value"] == 40 * SMALL + 20 * LARGE
    assert found["difference"]["cost"] == {"value": 0, "low": 0, "high": 0, "estimated": False, "unknown": 0}
    assert found["coverage"]["exact"] == 40


def test_a_table_shows_both_ways_and_what_is_estimated(corea: Any, ledger: str) -> None:
    code, told, remarks = corea("--ledger", ledger, "--threshold", "small=0.9", "--by", "task")
    assert code == 0
    lines = {line.split("  ")[0]: line for line in told.split("\na\n")[0].splitlines()}
    assert "as it was" in told.splitlines()[2]
    assert lines["deferred"].split()[1:] == ["50.0%", "100.0%", "+50.0", "points"]
    assert lines["cost"].split()[1:] == ["$0.002400", "~$0.004400", *_COST, "~+$0.002000", *_MORE]
    assert [line for line in told.splitlines() if line in ("all tasks", "a", "b")] == ["all tasks", "a", "b"]
    assert "20 exact, 20 estimated; 20 answered by another tier" in told
    assert "is estimated from those that reached it, which are harder ones" in " ".join(remarks.split())


def test_a_report_goes_to_a_file_and_is_the_json_that_is_printed(corea: Any, ledger: str) -> None:
    code, told, _ = corea("--ledger", ledger, "--price", "large=1/1", "--out", "r.json", "--json")
    assert code == 0
    assert json.loads(Path("r.json").read_text()) == json.loads(told)
    # 100 tokens in and 20 out at a dollar a million.
    assert total(told)["difference"]["cost"]["value"] == 20 * (120_000 - LARGE)


def test_a_window_and_a_task_choose_the_requests(corea: Any, ledger: str) -> None:
    _, told, _ = corea(
        "--ledger", ledger, "--threshold", "small=1", "--since", "2026-01-01", "--until", "2026-01-02T00:00", "--json"
    )
    assert total(told)["was"]["requests"] == 24
    _, told, _ = corea("--ledger", ledger, "--threshold", "small=1", "--task", "a", "--json")
    assert total(told)["was"]["requests"] == 20


def test_a_certificate_that_promises_nothing_asks_the_large_model_at_once(corea: Any, ledger: str) -> None:
    code, told, _ = corea("--ledger", ledger, "--certificate", certificate(threshold=None), "--json")
    assert code == 0
    found = total(told)
    assert found["would"]["deferral"] == {"low": 1, "high": 1}
    assert found["would"]["saved"]["value"] == 0
    assert found["would"]["drop"] == {"low": 0, "high": 0, "unknown": 0, "n": 40}


def test_another_configuration_brings_its_threshold_and_its_stated_prices(corea: Any, ledger: str) -> None:
    Path("other.toml").write_text(
        '[[tiers]]\nname = "small"\nkind = "openai"\nmodel = "s"\nbase_url = "http://localhost:1/v1"\nthreshold = 0.2\n'
        "prices = { input = 0.1, output = 0.1 }\n"
        '[[tiers]]\nname = "large"\nkind = "openai"\nmodel = "l"\nbase_url = "http://localhost:1/v1"\n'
        "prices = { input = 9, output = 9 }\n"
    )
    code, told, remarks = corea("--config", "other.toml", "--ledger", ledger, "--guard", "none", "--json")
    assert code == 0, remarks
    assert total(told)["would"]["cost"]["value"] == 40 * 12_000
    _, told, _ = corea("--config", "other.toml", "--ledger", ledger, "--threshold", "small=0.5", "--json")
    assert total(told)["would"]["cost"]["value"] == 40 * 12_000 + 20 * 1_080_000


def test_a_budget_that_is_too_small_keeps_what_was_deferred_once_it_knows_what_requests_cost(
    corea: Any, ledger: str
) -> None:
    code, told, _ = corea("--ledger", ledger, "--policy", "budget:0.00001/day", "--json")
    assert code == 0
    found = total(told)
    # It takes 32 requests to know; four of the eight after them were deferred.
    assert (found["was"]["deferral"]["low"], found["would"]["deferral"]["low"]) == (20 / 40, 16 / 40)
    assert found["difference"]["cost"]["value"] == -4 * LARGE
    assert found["coverage"]["exact"] == 40


def test_the_policies_of_another_configuration_are_replayed_on_the_clock_of_the_requests(
    corea: Any, ledger: str
) -> None:
    tier = '[[tiers]]\nname = "{}"\nkind = "openai"\nmodel = "m"\nbase_url = "http://localhost:1/v1"\n'
    small = tier.format("small") + "threshold = 0.5\nprices = { input = 0.1, output = 0 }\n"
    large = tier.format("large") + "prices = { input = 1, output = 0 }\n"
    thrift = '[policies.thrift.budget]\nusd = 0.00001\n[tasks]\na = "thrift"\nb = "thrift"\n'
    Path("other.toml").write_text(small + large + thrift)
    code, told, remarks = corea("--config", "other.toml", "--ledger", ledger, "--json")
    assert code == 0, remarks
    assert total(told)["would"]["cost"]["value"] == 40 * 10_000 + 16 * 100_000


def test_outcomes_are_held_against_the_large_model_alone(corea: Any) -> None:
    code, told, _ = corea("--outcomes", outcomes(), "--threshold", "small=0.25", "--json")
    assert code == 0
    found = total(told)
    assert found["was"]["cost"]["value"] == 10 * LARGE
    assert found["would"]["cost"]["value"] == 10 * SMALL + 3 * LARGE
    # Of the seven that are kept, one is wrong.
    assert found["would"]["drop"] == {"low": 0.1, "high": 0.1, "unknown": 0, "n": 10}
    assert found["coverage"]["exact"] == 10


@pytest.mark.parametrize(
    "args, said",
    [
        ((), "say what is to be otherwise"),
        (("--threshold", "0.8"), "write for example small=0.8"),
        (("--threshold", "small=80"), "from 0 to 1"),
        (("--threshold", "huge=0.8"), "the tiers are: small, large"),
        (("--threshold", "large=0.8"), "is the last tier"),
        (("--price", "large=cheap"), "write for example large=2.5/10"),
        (("--price", "large=nan/1"), "write for example large=2.5/10"),
        (("--threshold", "small=0.8", "--since", "yesterday"), "write for example 90m"),
        (("--threshold", "small=0.8", "--task", "none such"), "there are no requests to replay"),
        (("--threshold", "small=0.8", "--key", "none such"), 'there is no key "none such"'),
        (("--threshold", "small=0.8", "--signal", "logprob"), "--signal goes with --outcomes"),
        (("--threshold", "small=0.8", "--certificate", "c.json"), "given two bars"),
        (("--certificate", "other.json"), "is about the confidence logprob, and verbalized was recorded"),
        (("--certificate", "c.json", "--out", "c.json"), "is one of the inputs"),
        (("--policy", "thrift:9"), "write for example budget:12.5/day, or latency:8"),
        (("--policy", "budget:much/day"), "write for example budget:12.5/day, or latency:8"),
        (("--policy", "latency:8/day"), "write for example budget:12.5/day, or latency:8"),
    ],
)
def test_what_cannot_be_replayed_is_refused_with_what_to_do(
    corea: Any, ledger: str, args: tuple[str, ...], said: str
) -> None:
    certificate()
    certificate("other.json", signal="logprob")
    code, _, remarks = corea("--ledger", ledger, *args)
    assert code == 1
    assert said in " ".join(remarks.split())


def test_a_ledger_that_is_not_there_is_refused(corea: Any, tmp_path: Path) -> None:
    code, _, remarks = corea("--ledger", f"sqlite:///{tmp_path / 'none.db'}", "--threshold", "small=0.5")
    assert code == 1
    assert "no ledger" in remarks
    assert not (tmp_path / "none.db").exists()


def test_options_of_a_ledger_do_not_go_with_outcomes(corea: Any) -> None:
    code, _, remarks = corea("--outcomes", outcomes(), "--threshold", "small=0.5", "--since", "1d")
    assert code == 1
    assert "--since goes with a ledger" in remarks
    code, _, remarks = corea("--outcomes", "o.parquet", "--policy", "latency:8")
    assert code == 1
    assert "--policy goes with a ledger" in remarks
