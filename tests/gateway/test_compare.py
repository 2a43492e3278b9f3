"""The comparison with other gateways: what it makes of its measurements."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.gateway import peers
from bench.gateway.compare import figures, record_of, section, shown
from bench.gateway.load import drive, request
from bench.gateway.measure import BODY, LOADS, SATURATED, Measured, Round, Summary, quantile, summary
from bench.gateway.processes import cpu_s, family, pss_mb, started
from bench.gateway.servers import corea
from corea.config import Config

LINUX = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="figures of other processes come from /proc")
FACTORS = {"direct": 0.0, "bare": 1.0, "corea": 1.5, "corea-no-ledger": 1.4, "portkey": 5.0, "litellm": 50.0}


def a_summary(factor: float, *, per_s: float) -> Summary:
    names = ("p50", "p99", "added_p50", "added_p50_least", "added_p50_most", "added_p99")
    firsts = ("added_first_word_p50", "added_first_word_p99")
    return {
        **{f"{name}_ms": factor for name in (*names, *firsts)},
        "cpu_ms": factor,
        "requests_per_s": per_s,
        "requests": 9.0,
    }


def measured(**factors: float) -> Measured:
    """Everything of a server is its factor; requests/s are 3000 over it."""
    chosen = {**FACTORS, **{name.replace("_", "-"): factor for name, factor in factors.items()}}

    def of(load: str) -> dict[str, Summary]:
        return {
            name: a_summary(factor, per_s=3000 / (factor or 1.0))
            for name, factor in chosen.items()
            if name != "corea-no-ledger" or load in SATURATED
        }

    memory = {name: 10.0 * factor for name, factor in chosen.items() if factor}
    return Measured(loads={load.name: of(load.name) for load in LOADS}, memory_mb=memory, pinned=True)


def record(found: Measured) -> dict[str, Any]:
    versions = {"corea": "0.1", "litellm": "1.2", "portkey": "3.4", "node": "20"}
    # As it is read from its file.
    kept: dict[str, Any] = json.loads(json.dumps(record_of(found, versions=versions, seconds=450.0, rounds=8)))
    return kept


def verdicts(found: Measured) -> Mapping[str, bool | None]:
    return {figure.name: figure.met for figure in figures(found.loads, found.memory_mb)}


def test_every_ratio_that_is_wanted_is_told() -> None:
    told = verdicts(measured())
    assert all(told.values())
    for load in ("alone", "16 at once", "alone, streamed", "16 at once, streamed"):
        for what in ("added p50", "added p99"):
            assert {f"{what} ÷ LiteLLM's, {load}", f"{what} ÷ Portkey's, {load}"} <= told.keys()
        assert f"added p50 ÷ the bare relay's, {load}" in told
        assert f"CPU a request ÷ LiteLLM's, {load}" in told
    for load in ("64 at once", "64 at once, streamed"):
        for other in ("LiteLLM's", "Portkey's", "that without a ledger"):
            assert f"requests/s ÷ {other}, {load}" in told


@pytest.mark.parametrize(
    "factors,missed",
    [
        ({"corea": 2.1, "corea_no_ledger": 2.0}, {"added p50 ÷ the bare relay's, alone"}),
        ({"corea": 5.1}, {"added p99 ÷ Portkey's, 16 at once", "CPU a request ÷ LiteLLM's, alone"}),
        ({"litellm": 9.0}, {"added p50 ÷ LiteLLM's, 16 at once, streamed", "requests/s ÷ LiteLLM's, 64 at once"}),
        ({"portkey": 2.9}, {"requests/s ÷ Portkey's, 64 at once, streamed"}),
        ({"corea_no_ledger": 1.1}, {"requests/s ÷ that without a ledger, 64 at once"}),
        ({"litellm": 3.0}, {"memory ÷ LiteLLM's"}),
    ],
)
def test_a_ratio_that_is_not_reached_is_missed(factors: dict[str, float], missed: set[str]) -> None:
    told = verdicts(measured(**factors))
    assert {name for name, met in told.items() if met is False} >= missed
    kept = record(measured(**factors))
    assert f"{sum(met is True for met in told.values())} are met. Missed:" in section(kept)
    for name in missed:
        assert f"\n| {name} | " in section(kept)
        assert f"{name}: " in shown(kept)
    assert shown(kept).count("MISSED") == sum(met is False for met in told.values())


def test_another_that_was_faster_than_the_direct_line_is_no_success_of_ours() -> None:
    told = verdicts(measured(bare=-0.1))
    assert told["added p50 ÷ the bare relay's, alone"] is False


def test_the_section_has_a_row_for_each_server_and_nothing_left_open() -> None:
    text = section(record(measured()))
    for name, cells in {
        "COREA": "1.50 / 1.50 ms | 1.50 / 1.50 ms | 1.50 ms | 2000 | 15 MB",
        "LiteLLM": "50.00 / 50.00 ms | 50.00 / 50.00 ms | 50.00 ms | 60 | 50.00 ms | 50.00 ms",
        "COREA, no ledger": " |  | 1.40 ms | 2143 | 14 MB",
    }.items():
        assert f"\n| {name} | {cells} |\n" in text
    assert "are met.\n" in text
    assert not any(word in text for word in ("nan", "None", "TODO", "{", "Missed"))
    prose = [line for line in text.splitlines() if not line.startswith("|")]
    assert max(map(len, prose)) <= 120


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50).map(sorted), st.floats(0, 1))
def test_a_quantile_is_between_its_neighbours_and_grows_with_its_share(values: list[float], share: float) -> None:
    assert values[0] <= quantile(values, share) <= values[-1]
    assert quantile(values, 0) == values[0]
    assert quantile(values, 1) == values[-1]
    assert quantile(values, share / 2) <= quantile(values, share) + 1e-6


def test_what_is_added_is_added_in_the_same_round() -> None:
    def one(*latencies_ms: float) -> Round:
        return Round(latencies_ms=list(latencies_ms), first_words_ms=list(latencies_ms), per_s=1.0, cpu_ms=1.0)

    direct = [one(20, 20, 20), one(40, 40, 40), one(21, 21, 21)]
    told = summary([one(22, 23, 24), one(43, 44, 45), one(22, 23, 24)], direct)
    assert (told["added_p50_ms"], told["added_p50_least_ms"], told["added_p50_most_ms"]) == (3, 2, 4)
    assert math.isclose(told["added_p99_ms"], 3.98)
    assert told["requests"] == 9


@LINUX
@pytest.mark.parametrize("stream", [False, True])
def test_the_load_counts_whole_answers_and_stops_at_others(stream: bool) -> None:
    with started([sys.executable, "-m", "bench.gateway.upstream", "PORT"]) as (port, pid):
        taken = drive(port, request({**BODY, "stream": stream}, {}), stream=stream, at_once=3, seconds=0.01)
        assert len(taken.latencies_ms) >= 3
        assert all(a <= b for a, b in zip(taken.first_words_ms, taken.latencies_ms, strict=True))
        assert min(taken.first_words_ms) >= 20
        assert family(pid) == [pid]
        assert cpu_s(pid) > 0
        assert pss_mb(pid) > 1
        with pytest.raises(RuntimeError, match='HTTP 200: {"object": "list"'):
            drive(port, b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n", stream=stream, at_once=1, seconds=0.01)


@LINUX
def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeError, match="a server did not start; it said: no such luck"),
        started([sys.executable, "-c", "raise SystemExit('no such luck')"], log=tmp_path / "log"),
    ):
        raise AssertionError


@LINUX
def test_what_a_process_started_counts_as_its_own() -> None:
    nested = "import subprocess, sys; subprocess.run([sys.executable, '-m', 'bench.gateway.upstream', sys.argv[1]])"
    with started([sys.executable, "-c", nested, "PORT"]) as (_, pid):
        _, child = family(pid)
        assert cpu_s(pid) > cpu_s(child) > 0
    # Neither was left behind.
    assert not Path(f"/proc/{child}/cmdline").exists() or not Path(f"/proc/{child}/cmdline").read_bytes()


@pytest.mark.parametrize("ledger", [True, False])
def test_corea_is_compared_with_its_key_and_as_it_says_its_ledger(tmp_path: Path, ledger: bool) -> None:
    server = corea(8000, tmp_path, ledger=ledger)
    config = Config.load(Path(server.command[server.command.index("--config") + 1]))
    assert config.ledger.enabled is ledger
    assert config.gateway.api_key_env in server.env
    assert server.headers["Authorization"].removeprefix("Bearer ") == server.env["COREA_API_KEY"]
    assert [tier.name for tier in config.tiers][-1] == BODY["model"]


def test_the_others_are_asked_for_the_same_and_with_a_key(tmp_path: Path) -> None:
    litellm, portkey = peers.litellm(tmp_path, 8000, tmp_path), peers.portkey(tmp_path, 8000)
    written = (tmp_path / "litellm.yaml").read_text()
    assert f"model_name: {BODY['model']}\n" in written
    assert f"master_key: {litellm.headers['Authorization'].removeprefix('Bearer ')}\n" in written
    assert portkey.headers["x-portkey-custom-host"] == "http://127.0.0.1:8000/v1"
    assert "http://127.0.0.1:8000/v1" in written
