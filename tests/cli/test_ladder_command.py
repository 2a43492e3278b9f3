"""``corea eval ladder`` on the command line: what it prints, what it writes, and how it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from corea.cli import main
from corea.evaluate.outcomes import CONFIDENCE, write
from corea.policy.ladder_certificate import load

COSTS = {"s": 10, "m": 300, "l": 1000}


def outcomes(n: int = 1200, *, costs: dict[str, int] | None = None) -> str:
    rng = np.random.default_rng(0)
    made = []
    for index in range(n):
        small = 0.98 + 0.02 * rng.random() if rng.random() < 0.5 else 0.5 * rng.random()
        for tier, sure in (("s", small), ("m", 0.9 + 0.1 * rng.random()), ("l", 1.0)):
            one: dict[str, Any] = {"id": f"q{index}", "tier": tier, "question": f"say {index}"}
            made.append({**one, "correct": float(rng.random() < sure), CONFIDENCE + "logprob": sure})
            made[-1]["cost_nano_usd"] = (costs or COSTS)[tier]
    write(Path("o.parquet"), made, metadata={"tiers": ["s", "m", "l"], "data_hash": "d1"}, signals=("logprob",))
    return "o.parquet"


@pytest.fixture
def corea(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs the command in this process, in the test's own folder: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")

    def run(*args: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["corea", "eval", "ladder", *args])
        code = 0
        try:
            main()
        except SystemExit as exc:
            code = int(exc.code or 0)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


def test_the_best_ladder_is_told_with_its_thresholds_and_its_promise(corea: Any) -> None:
    code, told, _ = corea(outcomes(), "--max-drop", "0.05", "--out", "ladder.json")
    assert code == 0
    made = load(Path("ladder.json"))
    assert told.startswith("s → m → l, chosen on ")
    assert "; the best pair, " in told
    for rung in made.certified.rungs:
        assert f"{rung.tier}: {rung.threshold!r} and above are kept" in told
    assert made.certified.promise in told
    assert "no cascade runs by it" in told


def test_json_holds_all_that_is_told_and_without_out_nothing_is_written(corea: Any) -> None:
    _, printed, _ = corea(outcomes(), "--max-drop", "0.05", "--json")
    told = json.loads(printed, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert told["tiers"] == ["s", "m", "l"]
    assert told["signals"] == {"s": "logprob", "m": "logprob"}
    assert [set(one) for one in told["candidates"]] == [{"tiers", "foreseen"}] * 3
    assert told["chosen_on"] + told["n"] == 1200
    assert told["out"] is None
    assert {path.name for path in Path().iterdir()} - {"home"} == {"o.parquet"}


def test_named_tiers_are_a_pair_and_its_certificate_one_of_two_tiers(corea: Any) -> None:
    _, told, _ = corea(outcomes(), "--tiers", "m, l", "--max-drop", "0.1", "--out", "pair.json")
    assert told.startswith("m → l, ")
    assert set(json.loads(Path("pair.json").read_text())) >= {"promises", "small", "large"}


@pytest.mark.parametrize(
    "args, said",
    [
        (("--tiers", "s,x"), 'no tier "x"'),
        (("--signal", "p_true"), "the confidence p_true"),
        (("--max-drop", "0"), "accuracy that may be lost"),
        (("--out", "o.parquet"), "is one of the inputs"),
    ],
)
def test_what_makes_no_ladder_is_refused_in_one_line(corea: Any, args: tuple[str, ...], said: str) -> None:
    code, told, refused = corea(outcomes(300), *args)
    assert (code, told, refused.count("\n")) == (1, "", 1)
    assert said in refused


def test_prices_out_of_order_are_refused_with_the_order_that_would_do(corea: Any) -> None:
    code, _, refused = corea(outcomes(90, costs={"s": 10, "m": 2000, "l": 1000}))
    assert code == 1
    assert "--tiers s,l,m" in refused
