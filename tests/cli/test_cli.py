"""The command line, as a process of its own, against a real HTTP endpoint on loopback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from faults.endpoint import FaultyEndpoint, served_from_a_thread


def corea(
    *args: str, cwd: Path, stdin: str | None = None, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "corea", *args],
        cwd=cwd,
        input=stdin,
        capture_output=True,
        text=True,
        env={**os.environ, "NO_COLOR": "1", "COLUMNS": "200", **(env or {})},
        timeout=60,
        check=False,
    )


def config_for(endpoint: FaultyEndpoint, **small: Any) -> str:
    """Two tiers at one endpoint, which is sure of itself: its reply ends with "Confidence: 9"."""
    extra = "".join(f"{name} = {json.dumps(value)}\n" for name, value in small.items())
    common = f'kind = "openai"\nbase_url = "{endpoint.base_url}"\nmodel = "m"\nmax_retries = 0\n'
    return (
        f'[[tiers]]\nname = "small"\n{common}threshold = 0.9\nprices = {{ input = 1, output = 1 }}\n'
        f'confidence = {{ estimator = "verbalized" }}\n{extra}'
        f'[[tiers]]\nname = "large"\n{common}prices = {{ input = 10, output = 10 }}\n'
    )


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Path]:
    """A folder with a corea.toml whose endpoint works."""
    with served_from_a_thread() as endpoint:
        (tmp_path / "corea.toml").write_text(config_for(endpoint))
        yield tmp_path


def test_ask_prints_the_answer_to_stdout_and_the_bill_to_stderr(here: Path) -> None:
    done = corea("ask", "What is 6 × 7?", cwd=here)
    assert done.returncode == 0
    assert done.stdout == "Six times seven.\nAnswer: 42\n"
    assert "small · confidence 0.950" in done.stderr
    assert "saved" in done.stderr


def test_explain_says_in_a_sentence_why_the_answer_was_kept(here: Path) -> None:
    done = corea("ask", "What is 6 × 7?", "--explain", cwd=here)
    assert "Kept the answer of small: its confidence 0.95 reaches the threshold 0.9." in done.stdout


def test_a_higher_threshold_defers(here: Path) -> None:
    done = corea("ask", "What is 6 × 7?", "--threshold", "0.99", "--explain", cwd=here)
    assert "Deferred from small: its confidence 0.95 is below the threshold 0.99." in done.stdout
    assert "Kept the answer of large: it is the last tier" in done.stdout


def test_json_holds_the_whole_trace(here: Path) -> None:
    trace = json.loads(corea("ask", "What is 6 × 7?", "--json", cwd=here).stdout)
    assert (trace["answer"], trace["tier"], trace["deferred"]) == ("42", "small", False)
    assert trace["saved_nano_usd"] == trace["baseline_nano_usd"] - trace["cost_nano_usd"]
    assert trace["attempts"][0]["decision"]["reason"] == "confident"


def test_a_question_can_come_from_stdin(here: Path) -> None:
    assert corea("ask", "-", cwd=here, stdin="What is 6 × 7?\n").stdout.endswith("Answer: 42\n")


@pytest.mark.parametrize(
    "args,words",
    [
        (("ask", "  "), "the question is empty"),
        (("ask", "?", "--threshold", "1.5"), "threshold: 1.5 is outside [0, 1]"),
        (("ask", "?", "--config", "none.toml"), "none.toml is not there; write one with: corea config init"),
        (("trace", "show", "abc"), "no ledger at"),
        (("models", "path", "qwen2.5-coder-0.6b"), "did you mean qwen2.5-coder-0.5b?"),
        (("models", "path", "smollm2-135m"), "run: corea models pull smollm2-135m"),
        (("batch", "none.jsonl", "out.jsonl"), "cannot read none.jsonl"),
        (("config", "init"), "corea.toml is there already"),
    ],
)
def test_a_mistake_is_one_line_on_stderr_and_exit_code_1(here: Path, args: tuple[str, ...], words: str) -> None:
    done = corea(*args, cwd=here)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert words in done.stderr


def test_a_missing_key_variable_is_named(tmp_path: Path) -> None:
    with served_from_a_thread() as endpoint:
        (tmp_path / "corea.toml").write_text(config_for(endpoint, api_key_env="COREA_TEST_KEY"))
        assert "export COREA_TEST_KEY=" in corea("ask", "?", cwd=tmp_path).stderr
        assert "COREA_TEST_KEY" in corea("config", "check", cwd=tmp_path).stderr
        assert corea("ask", "?", cwd=tmp_path, env={"COREA_TEST_KEY": "canary"}).returncode == 0
        assert endpoint.requests[-1].key == "canary"


def test_a_key_reaches_neither_output_nor_ledger(tmp_path: Path) -> None:
    canary = "sk-canary-0123456789"
    with served_from_a_thread("status_401") as endpoint:
        (tmp_path / "corea.toml").write_text(config_for(endpoint, api_key_env="COREA_TEST_KEY"))
        done = corea("ask", "?", "--json", cwd=tmp_path, env={"COREA_TEST_KEY": canary})
    home = Path(os.environ["COREA_HOME"])
    assert done.returncode == 1
    assert canary not in done.stdout + done.stderr
    assert not any(canary.encode() in path.read_bytes() for path in home.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    "fault",
    ["status_500", "status_429", "html_200", "truncated_json", "cut_body", "reset", "garbage", "not_http", "hang"],
)
def test_a_broken_small_endpoint_costs_a_deferral_not_the_answer(tmp_path: Path, fault: str) -> None:
    with served_from_a_thread(fault) as broken, served_from_a_thread() as fine:
        small, large = config_for(broken, timeout_s=0.5).split("[[tiers]]")[1], config_for(fine).split("[[tiers]]")[2]
        (tmp_path / "corea.toml").write_text(f"[[tiers]]{small}[[tiers]]{large}")
        done = corea("ask", "What is 6 × 7?", "--explain", "--json", cwd=tmp_path)
    trace = json.loads(done.stdout)
    assert (trace["answer"], trace["tier"]) == ("42", "large")
    assert trace["attempts"][0]["failure"]["message"]
    assert "Deferred from small: it failed" in trace["explanation"]


def test_endpoints_that_refuse_are_told_and_the_trace_is_kept(tmp_path: Path) -> None:
    with served_from_a_thread() as endpoint:
        text = config_for(endpoint)
    (tmp_path / "corea.toml").write_text(text)
    done = corea("ask", "?", cwd=tmp_path)
    assert done.returncode == 1
    assert "no tier gave an answer" in done.stderr
    assert done.stderr.count("\n") == 1
    (row,) = json.loads(corea("trace", "list", "--json", cwd=tmp_path).stdout)
    assert row["error"] is True


def test_traces_are_listed_and_shown_by_the_start_of_their_id(here: Path) -> None:
    ids = [json.loads(corea("ask", q, "--json", cwd=here).stdout)["id"] for q in ("first?", "second?")]
    listed = json.loads(corea("trace", "list", "--json", cwd=here).stdout)
    assert [row["id"] for row in listed] == ids[::-1]
    shown = corea("trace", "show", ids[0], cwd=here)
    assert "question: first?" in shown.stdout
    assert "reaches the threshold" in shown.stdout
    assert ids[1] in corea("trace", "list", cwd=here).stdout
    assert json.loads(corea("trace", "show", ids[1], "--json", cwd=here).stdout)["request"]["messages"]


def test_batch_grades_resumes_and_says_by_its_exit_code_that_a_line_was_bad(here: Path) -> None:
    lines = [json.dumps({"id": i, "question": f"{i}?", "answer": 42}) for i in range(5)]
    (here / "in.jsonl").write_text("\n".join([*lines, "oops"]) + "\n")
    done = corea("batch", "in.jsonl", "out.jsonl", "--json", cwd=here)
    summary = json.loads(done.stdout)
    assert done.returncode == 1
    assert "in.jsonl: line 6: not JSON" in done.stderr
    assert (summary["rows"], summary["correct"], summary["bad_lines"]) == (5, 5, 1)
    (here / "in.jsonl").write_text("\n".join(lines) + "\n")
    again = corea("batch", "in.jsonl", "out.jsonl", cwd=here)
    assert again.returncode == 0
    assert "5 (5 from earlier)" in again.stdout
    assert "100.0% (5 of 5)" in again.stdout
    assert "Prices: small configuration; large configuration." in again.stderr
    other = corea("batch", "in.jsonl", "out.jsonl", "--threshold", "0.99", cwd=here)
    assert other.returncode == 1
    assert "another run" in other.stderr


def test_ctrl_c_ends_a_batch_cleanly_and_the_same_command_goes_on(tmp_path: Path) -> None:
    with served_from_a_thread("ok", "ok", "hang") as endpoint:
        (tmp_path / "corea.toml").write_text(config_for(endpoint))
        (tmp_path / "in.jsonl").write_text("".join(json.dumps({"id": i, "question": "?"}) + "\n" for i in range(9)))
        process = subprocess.Popen(
            [sys.executable, "-m", "corea", "batch", "in.jsonl", "out.jsonl", "--concurrency", "1"],
            cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            # A shell's background jobs ignore Ctrl-C, and so would their children.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - takes no lock
        )  # fmt: skip
        out = tmp_path / "out.jsonl"
        while process.poll() is None and (not out.exists() or out.read_text().count("\n") < 2):
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "the same command goes on from there" in stderr
    assert "Traceback" not in stderr
    assert [json.loads(line)["id"] for line in out.read_text().splitlines()] == ["0", "1"]


def test_a_downstream_that_stops_reading_is_no_error(here: Path) -> None:
    corea("ask", "?", cwd=here)
    done = subprocess.run(
        f"{sys.executable} -m corea trace list --json | true",
        shell=True,
        cwd=here,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Traceback" not in done.stderr


def test_config_init_writes_a_file_that_checks_and_shows(tmp_path: Path) -> None:
    assert corea("config", "init", cwd=tmp_path).returncode == 0
    checked = corea("config", "check", cwd=tmp_path)
    assert checked.returncode == 0
    assert "corea models pull qwen2.5-coder-0.5b" in checked.stdout
    shown = corea("config", "show", cwd=tmp_path)
    (tmp_path / "again.toml").write_text(shown.stdout)
    assert corea("config", "check", "again.toml", cwd=tmp_path).returncode == 0
    assert json.loads(corea("config", "show", "--json", cwd=tmp_path).stdout)["tiers"][0]["threshold"] == 0.92


def test_eval_run_asks_every_tier_every_question_and_resumes(here: Path) -> None:
    (here / "in.jsonl").write_text(
        "".join(json.dumps({"id": i, "question": "?", "answer": 42}) + "\n" for i in range(3))
    )
    first = corea("eval", "run", "--data", "in.jsonl", "--out", "o.parquet", "--json", cwd=here)
    assert json.loads(first.stdout) == {"questions": 3, "tiers": ["small", "large"], "failed": 0, "out": "o.parquet"}
    again = corea("eval", "run", "--data", "in.jsonl", "--out", "o.parquet", cwd=here)
    assert again.stdout == "3 questions × 2 tiers in o.parquet\n"
    wrong = corea("eval", "run", "--data", "in.jsonl", "--out", "p.parquet", "--tiers", "tiny", cwd=here)
    assert wrong.stderr == 'error: no tier is called "tiny"; there are: small, large\n'


@pytest.mark.parametrize("verb", ["ask", "batch", "demo", "eval", "models", "config", "trace"])
def test_every_verb_explains_itself(tmp_path: Path, verb: str) -> None:
    done = corea(verb, "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert "Usage:" in done.stdout


def test_wrong_usage_exits_with_2(tmp_path: Path) -> None:
    assert corea("ask", cwd=tmp_path).returncode == 2


def test_the_version_is_printed(tmp_path: Path) -> None:
    assert corea("--version", cwd=tmp_path).stdout.startswith("corea 0.")
