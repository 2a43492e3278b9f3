"""``corea eval gate``: what it prints, what it writes, and how it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from corea.cli.gate import gate
from corea.config import parse
from corea.errors import InputError
from corea.evaluate.outcomes import CONFIDENCE, write
from corea.identity import shapes_of
from corea.policy import certificate
from corea.policy.gate import label, load

NAMES = ("red", "blue", "green", "old", "new", "tall", "thin", "wide", "cold", "warm")


def outcomes(n: int = 600, *, useful: bool = True, texts: bool = True, shapes: bool = False) -> str:
    """Sums, which the small model can do, and proofs, which it cannot; ``useful``: only the question tells which."""
    rng = np.random.default_rng(0)
    made: list[dict[str, Any]] = []
    for index in range(n):
        proof = rng.random() < 0.5
        right = float(rng.random() < (0.2 if proof else 0.99))
        stated = 0.5 * rng.random() + (0.25 if useful else 0.5 * right)
        words = " ".join(NAMES[at] for at in rng.integers(10, size=4))
        question = f"{'prove that' if proof else 'what is the sum of'} {words}" if texts else None
        common = {"id": f"q{index}", "question": question, "task": "maths", "finish_reason": "stop"}
        price = 300 if useful else 10
        made.append({**common, "tier": "s", "correct": right, CONFIDENCE + "logprob": stated, "cost_nano_usd": price})
        made.append({**common, "tier": "l", "correct": 1.0, "cost_nano_usd": 1000})
    metadata: dict[str, Any] = {"tiers": ["s", "l"], "data_hash": "d1"}
    if shapes:
        tier = 'kind = "openai"\nbase_url = "http://127.0.0.1:1/v1"\nmodel = "m"\n'
        judged = 'threshold = 0.5\nconfidence = { estimator = "logprob" }\n'
        config = parse(f'[[tiers]]\nname = "s"\n{tier}{judged}[[tiers]]\nname = "l"\n{tier}', source="x")
        metadata["shapes"] = [dict(shape) for shape in shapes_of(config).values()]
    write(Path("o.parquet"), made, metadata=metadata, signals=("logprob",))
    return "o.parquet"


@pytest.fixture
def corea(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the command in this process, in the test's own folder: what it prints. Raises what it raises."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")
    app = typer.Typer()
    app.command()(gate)

    def run(*args: str) -> str:
        given = ("--out", "gate.json", "--certificate", "cert.json", "--max-drop", "0.05", "--delta", "0.1")
        result = CliRunner().invoke(app, [*args[:1], *given, *args[1:]])
        if result.exception is not None:
            raise result.exception
        return result.stdout

    return run


def test_a_gate_that_is_better_is_told_with_what_it_skips_and_written_with_its_certificate(corea: Any) -> None:
    told = corea(outcomes(shapes=True))
    made, held = load(Path("gate.json")), certificate.load(Path("cert.json"))
    assert held.gate == label(made)
    assert made.tasks == ("maths",)
    assert f"s is not asked where its chance to be right is below {made.cut:.4g}" in told
    assert "without a gate   0.0%" in told
    assert held.promises[0].certified.promise in told
    assert 'gate = "gate.json"\ncertificate = "cert.json"\nconfidence = { estimator = "logprob" }' in told


def test_where_no_gate_is_better_that_is_said_and_only_a_certificate_is_written(corea: Any) -> None:
    told = corea(outcomes(useful=False, shapes=True))
    assert "no gate is better" in told
    assert "nothing is written to gate.json" in told
    assert "gate = " not in told
    assert not Path("gate.json").exists()
    assert certificate.load(Path("cert.json")).gate is None


def test_json_holds_all_that_is_told(corea: Any) -> None:
    printed = corea(outcomes(), "--json")
    told = json.loads(printed, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert told["gate"] == label(load(Path("gate.json")))
    assert told["gain"]["low"] < told["gain"]["value"] < told["gain"]["high"]
    assert told["gain"]["value"] == pytest.approx(told["saving"]["value"] - told["saving_without_a_gate"]["value"])
    assert told["fitted_on"] + told["n"] == 600
    assert {one["kind"] for one in told["candidates"]} == {"none", "fixed", "walked"}


def test_foreign_outcomes_make_a_gate_that_no_cascade_runs_by_and_that_is_said(corea: Any) -> None:
    assert "no cascade runs by them" in corea(outcomes())
    assert load(Path("gate.json")).model is None


def test_the_same_outcomes_give_the_same_gate_and_threshold(corea: Any) -> None:
    file = outcomes()
    first, second = (json.loads(corea(file, "--json")) for _ in range(2))
    assert [first[key] for key in ("cut", "threshold", "saving")] == [
        second[key] for key in ("cut", "threshold", "saving")
    ]


@pytest.mark.parametrize(
    "given, args, said",
    [
        ({"n": 90}, (), "90 questions are too few"),
        ({"texts": False}, (), "do not hold the texts of all"),
        ({}, ("--signal", "p_true"), "no confidence signal 'p_true'"),
        ({}, ("--out", "o.parquet"), "is one of the inputs"),
        ({}, ("--certificate", "gate.json"), "is one of the inputs"),
        ({}, ("--map", "m.json", "--signal", "logprob"), "leave out --signal"),
        ({}, ("--max-drop", "0"), "accuracy that may be lost"),
    ],
)
def test_what_makes_no_gate_is_refused_and_nothing_is_written(
    corea: Any, given: dict[str, Any], args: tuple[str, ...], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        corea(outcomes(**{"n": 200, **given}), *args)
    assert {path.name for path in Path().iterdir()} - {"home"} == {"o.parquet"}
