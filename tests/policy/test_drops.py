"""What a budget says that it is paying with: a drop by threshold, measured on outcomes and read from a file."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from corea.build import policies_of
from corea.cli.drops import drops as command
from corea.config import Config, parse
from corea.errors import ConfigError, InputError
from corea.evaluate.curves import curve_of
from corea.evaluate.outcomes import CONFIDENCE, read, write
from corea.evaluate.pairs import pair_of
from corea.identity import fingerprint, shapes_of
from corea.policy.base import Bar
from corea.policy.budget import Budget
from corea.policy.drops import Drops, load, save
from corea.policy.dual import Cut
from corea.policy.spent import Counted
from policy.driven import LARGE_NANO_USD, Driven, Wall

MADE = Drops(
    thresholds=(0.2, 0.5, 0.8), drop=(0.3, 0.1, 0.02), n=500, signal="logprob", models_hash="m", prompts_hash="p",
    data_hash="d", created_at="2026-01-01",
)  # fmt: skip
TIER = 'kind = "openai"\nbase_url = "http://127.0.0.1:1/v1"\nmodel = "m"\nprices = { input = 1, output = 1 }\n'
JUDGED = 'threshold = 0.5\nconfidence = { estimator = "logprob" }\n'
TIERS = f'[[tiers]]\nname = "s"\n{TIER}{JUDGED}[[tiers]]\nname = "l"\n{TIER}'
BUDGET = '[policies.thrifty]\nbudget = { usd = 1, drops = "drops.json" }\n'


def config(text: str = BUDGET, tiers: str = TIERS) -> Config:
    return parse(text + tiers, source="corea.toml").beside(Path())


def outcomes(n: int = 400) -> Path:
    """The surer the small model is, the likelier it is right; the large one always is."""
    rng = np.random.default_rng(0)
    made: list[dict[str, Any]] = []
    for index in range(n):
        sure = round(float(rng.random()), 2)
        common = {"id": f"q{index}", "question": f"question {index}?", "task": None, "finish_reason": "stop"}
        right = float(rng.random() < sure)
        made.append({**common, "tier": "s", "correct": right, CONFIDENCE + "logprob": sure, "cost_nano_usd": 1})
        made.append({**common, "tier": "l", "correct": 1.0, "cost_nano_usd": 10})
    shapes = [dict(shape) for shape in shapes_of(config("")).values()]
    metadata = {"tiers": ["s", "l"], "data_hash": "d1", "shapes": shapes}
    write(Path("o.parquet"), made, metadata=metadata, signals=("logprob",))
    return Path("o.parquet")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def made(*args: str) -> str:
    app = typer.Typer()
    app.command()(command)
    result = CliRunner().invoke(app, [str(outcomes()), "--out", "drops.json", *args], catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


# Values


def test_a_threshold_between_two_loses_what_the_next_higher_one_does_and_above_all_nothing_is_lost() -> None:
    assert [MADE.at(Cut(threshold=t)) for t in (0.0, 0.2, 0.3, 0.5, 0.8, 0.9)] == [0.3, 0.3, 0.1, 0.1, 0.02, 0.0]


@settings(deadline=None)
@given(st.floats(0, 1), st.sampled_from(MADE.thresholds))
def test_a_share_of_the_tied_ones_loses_that_share(share: float, threshold: float) -> None:
    at = MADE.thresholds.index(threshold)
    none = (*MADE.drop, 0.0)[at + 1]
    found = MADE.at(Cut(threshold=threshold, tie_fraction=share))
    assert found == pytest.approx(none + share * (MADE.drop[at] - none))


def test_a_file_is_read_as_it_was_written_and_one_that_was_altered_is_not(tmp_path: Path) -> None:
    path = tmp_path / "d.json"
    save(MADE, path)
    assert load(path) == MADE
    body = json.loads(path.read_text())
    path.write_text(json.dumps({**body, "drop": [0.0, 0.0, 0.0]}))
    with pytest.raises(InputError, match="altered: its checksum does not fit; make it again with: corea eval drops"):
        load(path)
    with pytest.raises(ValueError, match="thresholds do not rise"):
        replace(MADE, thresholds=(0.5, 0.2, 0.8))


# Measured


def test_each_threshold_loses_what_the_outcomes_say(here: Path) -> None:
    text = made("--signal", "logprob")
    assert "400 questions, logprob: keeping all whose confidence is known loses" in text
    assert 'budget = { usd = 20, drops = "drops.json" }' in text
    found = load(here / "drops.json")
    pair, _ = pair_of(read(here / "o.parquet"))
    curve = curve_of(pair, "logprob")
    told = [found.at(Cut(threshold=float(t))) for t in curve.thresholds[1:]]
    assert told == pytest.approx((curve.large.accuracy - curve.accuracy)[1:].tolist())


# In a configuration


def test_a_budget_reads_it_and_it_is_no_part_of_what_a_trace_was_made_by(here: Path) -> None:
    made("--signal", "logprob")
    (budget,) = policies_of(config("[ledger]\nenabled = true\n" + BUDGET)).named["thrifty"]
    assert isinstance(budget, Budget)
    assert budget._drops == load(here / "drops.json")
    assert fingerprint(config()) == fingerprint(config(BUDGET.replace(', drops = "drops.json"', "")))


@pytest.mark.parametrize(
    "change,words",
    [
        ((BUDGET, TIERS.replace("logprob", "p_true")), "measured for another confidence (logprob, here p_true)"),
        ((BUDGET, TIERS.replace('model = "m"', 'model = "n"')), "measured for another pair of models"),
        ((BUDGET.replace("drops.json", "no.json"), TIERS), "cannot be read"),
    ],
)
def test_one_of_other_tiers_or_none_is_refused(here: Path, change: tuple[str, str], words: str) -> None:
    made("--signal", "logprob")
    with pytest.raises(ConfigError) as caught:
        policies_of(config(*change))
    assert words in str(caught.value)
    assert caught.value.field == "policies.thrifty.budget.drops"


def test_a_budget_tells_the_measured_drop_of_the_threshold_that_it_sets() -> None:
    wall = Wall()
    budget = Budget(
        nano_usd=800 * LARGE_NANO_USD // 2, per="hour", tiers=("small", "large"), spent=Counted(), wall_clock=wall,
        drops=MADE,
    )  # fmt: skip
    day = Driven([budget], wall=wall, own=Bar(threshold=0.9))
    day.asked(400, random.Random(1), for_s=1800.0)
    note, plan = budget.before(day.view(), day.own).note, budget.plan
    assert plan is not None
    assert plan.cuts[0].threshold < 0.8
    # By itself, at 0.9, nothing would be lost.
    assert plan.paid == plan.drop == MADE.at(plan.cuts[0]) > 0
    assert note is not None
    assert note.endswith(f"expected to cost {100 * plan.paid:.2g} points, as measured on 500 questions")
