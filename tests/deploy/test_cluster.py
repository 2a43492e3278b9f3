"""The sizing guide's arithmetic, the simulation beside it, and that the page shows what was simulated."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given as for_all
from hypothesis import settings
from hypothesis import strategies as st

from bench.cluster import RESULTS, Server, Simulation, tables, works
from bench.sizing import Assumptions, attempt_s, erlang_c, plan, queue_s

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
#: In one line, since a figure may stand at the end of one.
WORDS = " ".join(PAGE.split())
#: Small enough to be simulated in a moment: short replies, so that little is in progress.
QUICK = replace(Assumptions(), small_reply_tokens=30, large_reply_tokens=40, prompt_tokens=50)


def simulation(given: Assumptions, per_s: float, seed: int = 1, *, bursts: bool = False) -> Simulation:
    return Simulation(given, plan(given, per_s), np.random.default_rng(seed), bursts=bursts)


def test_erlangs_formula_gives_the_figures_of_the_tables() -> None:
    assert erlang_c(1, 0.7) == pytest.approx(0.7)
    assert erlang_c(2, 1.0) == pytest.approx(1 / 3)
    # Ten places, eight Erlang: 0.4092 in any table of Erlang's C.
    assert erlang_c(10, 8.0) == pytest.approx(0.4092, abs=5e-5)


def test_a_single_server_that_takes_as_long_each_time_waits_half_as_long_as_one_at_random() -> None:
    assert queue_s(2.0, 0.25) == pytest.approx(2.0 + 0.5 * 2.0 * 0.5 / 0.5)


@for_all(st.floats(0.01, 0.98), st.floats(0.01, 0.98))
def test_more_work_never_makes_a_server_quicker(one: float, other: float) -> None:
    given = Assumptions()
    low, high = sorted((one, other))
    first, second = (attempt_s(given, "large", share * given.large_tokens_per_s) for share in (low, high))
    assert given.alone_s("large") <= first <= second * (1 + 1e-12)
    assert attempt_s(given, "large", given.large_tokens_per_s) == math.inf


@for_all(st.floats(1, 20_000), st.floats(0, 1))
def test_no_server_is_planned_for_more_than_its_share_and_none_is_idle(per_s: float, deferral_rate: float) -> None:
    given = replace(Assumptions(), deferral_rate=deferral_rate)
    wanted = plan(given, per_s)
    for tier, work in (("small", wanted.small_work_per_s), ("large", wanted.large_work_per_s)):
        servers, most = getattr(wanted, f"{tier}_servers"), getattr(given, f"{tier}_tokens_per_s")
        assert work <= servers * most * given.model_use * (1 + 1e-5)
        assert servers == 1 or work > (servers - 1) * most * given.model_use * (1 - 1e-5)
    assert wanted.gateways == max(wanted.gateways_by_cpu, wanted.gateways_by_active)


def test_a_cascade_that_always_defers_costs_more_than_the_large_model_alone() -> None:
    assert plan(replace(Assumptions(), deferral_rate=1.0), 1000.0).saving < 0
    assert plan(replace(Assumptions(), deferral_rate=0.2), 1000.0).saving > 0.5


@settings(max_examples=25)
@for_all(st.integers(1, 40), st.integers(1, 50), st.integers(0, 10**6))
def test_a_server_writes_what_it_is_asked_for_and_no_faster_than_it_can(count: int, max_seqs: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    server = Server(alone=10.0, most=50.0, max_seqs=max_seqs)
    work = rng.uniform(1.0, 20.0, count).tolist()
    for request, tokens in enumerate(work):
        server.take(tokens, request)
    done = []
    while server.writing:
        server.go_on(server.next_s())
        done.append(server.finished())
    assert sorted(done) == list(range(count))
    assert server.busy == pytest.approx(sum(work))
    assert server.now_s >= max(max(work) / server.alone, sum(work) / server.most) * (1 - 1e-9)


def test_the_simulation_agrees_with_the_arithmetic_where_both_hold() -> None:
    given = replace(QUICK, model_use=0.9)
    wanted, seen = plan(given, 150.0), simulation(given, 150.0).run()
    assert seen.refused == 0
    # 3,750 requests whose times scatter by about their mean: a standard error of 1.6 %.
    assert seen.mean_s == pytest.approx(wanted.mean_s, rel=0.06)
    assert seen.gateway_use == pytest.approx(150.0 * given.gateway_cpu_ms / 1e3 / wanted.gateways, rel=0.06)


def test_no_request_is_quicker_than_its_own_work() -> None:
    run = simulation(QUICK, 60.0, bursts=True)
    run.run()
    for request in range(run.first, run.last):
        least_s = run.work[0][request] / QUICK.small_alone_tokens_per_s
        least_s += run.work[1][request] / QUICK.large_alone_tokens_per_s if run.deferred[request] else 0.0
        least_s += (QUICK.gateway_cpu_ms + QUICK.row_ms + QUICK.commit_ms) / 1e3
        assert run.took_s[request] >= least_s * (1 - 1e-9)


def test_a_replica_that_is_full_refuses_and_forgets_nobody() -> None:
    given = replace(QUICK, max_active=5.0)
    few = replace(plan(given, 60.0), gateways=1)
    run = Simulation(given, few, np.random.default_rng(3), bursts=False)
    seen = run.run()
    assert 0 < seen.refused < seen.requests
    answered = sum(not math.isnan(took) for took in run.took_s[run.first : run.last])
    assert answered == seen.requests - seen.refused


def test_bursts_bring_as_many_requests_as_a_steady_stream_and_replies_are_as_long_as_is_said() -> None:
    steady, bursts = (simulation(QUICK, 200.0, bursts=bursts) for bursts in (False, True))
    assert len(bursts.start_s) == pytest.approx(len(steady.start_s), rel=0.03)
    in_bursts = sum(at % 25.0 < 5.0 for at in bursts.start_s) / len(bursts.start_s)
    assert in_bursts == pytest.approx(0.4, abs=0.02)
    given = Assumptions()
    drawn = works(given, "small", 20_000, np.random.default_rng(1))
    assert drawn.mean() == pytest.approx(given.work("small"))


def test_the_page_shows_what_was_simulated_and_every_assumption() -> None:
    body = json.loads(RESULTS.read_text(encoding="utf-8"))
    assert [run["planned"]["per_s"] for run in body["runs"]] == [100, 100, 1000, 1000, 10_000, 10_000]
    for table in tables(body):
        assert table in PAGE


def test_what_was_simulated_is_what_the_defaults_say() -> None:
    body = json.loads(RESULTS.read_text(encoding="utf-8"))
    assert Assumptions(**body["assumptions"]) == Assumptions()
    given = Assumptions()
    for run in body["runs"]:
        wanted = plan(given, run["planned"]["per_s"])
        assert run["planned"] == pytest.approx({name: getattr(wanted, name) for name in run["planned"]})


def test_the_worked_example_of_the_page_is_that_of_the_code() -> None:
    given, wanted = Assumptions(), plan(Assumptions(), 1000.0)
    for figure in (
        f"{given.work('small'):.0f}", f"{given.work('large'):.0f}",
        f"{wanted.small_work_per_s:,.0f}", f"{wanted.large_work_per_s:,.0f}",
        f"{wanted.small_servers} servers", f"{wanted.large_servers} servers", f"{wanted.gpus} GPUs",
        f"{wanted.in_progress:,.0f}", f"${wanted.usd_per_day:,.0f}", f"{wanted.large_alone_gpus} GPUs",
        f"${wanted.large_alone_usd_per_day:,.0f}", f"{wanted.saving:.1%}".replace("%", " %"),
    ):  # fmt: skip
        assert figure in WORDS, figure


def test_the_page_shows_what_was_measured_of_replicas() -> None:
    figures = json.loads((RESULTS.parent / "replicas.json").read_text(encoding="utf-8"))["figures"]
    traces = [f"{one['value']:,.0f}" for one in figures if one["unit"] == "/s"]
    assert " · ".join(traces) in WORDS
    (each,) = (one for one in figures if one["unit"] == "kB")
    assert f"{each['value']:.0f} kB" in WORDS
