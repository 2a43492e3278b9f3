"""Figures of a step equal those of evaluation, files survive, and a run that goes wrong is stopped with advice."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corea.confidence.protocol import DIGIT_VALUES
from corea.errors import InputError, TrainingStopped
from corea.evaluate.metrics import Resamples, rank, signal_metrics
from corea.train.curves import Curves, Watch, auroc, ece, line, step_metrics

NAN = float("nan")


@given(st.lists(st.tuples(st.booleans(), st.sampled_from(DIGIT_VALUES)), min_size=2, max_size=60))
def test_ece_and_auroc_are_those_of_evaluation(drawn: list[tuple[bool, float]]) -> None:
    correct, stated = np.array([float(y) for y, _ in drawn]), np.array([c for _, c in drawn])
    theirs = signal_metrics(correct, rank(stated), Resamples(len(drawn), rng=np.random.default_rng(0), count=2))
    assert ece(correct, stated) == pytest.approx(theirs.ece.value)
    if theirs.auroc.value is None:
        assert math.isnan(auroc(correct, stated))
    else:
        assert auroc(correct, stated) == pytest.approx(theirs.auroc.value)


def test_a_step_is_told_in_full() -> None:
    made = step_metrics(np.array([1.0, 1, 0, 0, 1, 0]), np.array([0.95, 0.95, 0.05, NAN, 0.75, 0.75]), group=2)
    assert made["pass_rate"] == 0.5
    assert made["confidence/stated"] == pytest.approx(5 / 6)
    assert made["confidence/distinct_digits"] == 3
    assert (made["groups/all_right"], made["groups/all_wrong"]) == pytest.approx((1 / 3, 1 / 3))


def test_where_no_reply_states_anything_there_is_no_calibration() -> None:
    made = step_metrics(np.array([1.0, 0.0]), np.array([NAN, NAN]), group=2)
    assert math.isnan(made["confidence/ece"])
    assert math.isnan(made["confidence/auroc"])
    assert made["confidence/distinct_digits"] == 0


def test_curves_are_kept_and_taken_up_at_a_checkpoint(tmp_path: Path) -> None:
    curves = Curves(path=tmp_path / "new" / "curves.parquet")
    for step in (1, 2, 3):
        curves.add(
            step, {"loss": step / 2, "confidence/ece": NAN, "name": "no figure", **({"late": 1.0} if step > 2 else {})}
        )
    curves.write()
    again = Curves.resumed(curves.path, step=2)
    assert [row["step"] for row in again.rows] == [1, 2]
    assert again.rows[1] == {"step": 2, "loss": 1.0, "confidence/ece": None, "late": None}
    assert Curves.resumed(curves.path, step=0).rows == []
    assert Curves.resumed(tmp_path / "none", step=2).rows == []
    curves.path.write_bytes(b"no parquet")
    with pytest.raises(InputError, match="delete it, or start anew"):
        Curves.resumed(curves.path, step=2)


def test_a_collapse_is_as_many_steps_in_a_row_as_configured() -> None:
    watch = Watch(collapse_steps=3)
    for step, digits in enumerate((1, 1, 2, 1, 0, 1, 1)):
        watch.check(step, {"loss": 0.1, "confidence/distinct_digits": digits, "confidence/mean": 0.95})
    with pytest.raises(
        TrainingStopped, match=r"every reply of the last 3 steps .* \(95 % sure\); run the warm-up first"
    ):
        watch.check(7, {"loss": 0.1, "confidence/distinct_digits": 1, "confidence/mean": 0.95})
    never = Watch(collapse_steps=0)
    for step in range(100):
        never.check(step, {"confidence/distinct_digits": 1})


@pytest.mark.parametrize("name", ["loss", "grad_norm"])
@pytest.mark.parametrize("value", [NAN, float("inf")])
def test_figures_that_are_no_numbers_stop_the_run(name: str, value: float) -> None:
    with pytest.raises(TrainingStopped, match=f"step 4: {name} is .* lower rl.learning_rate"):
        Watch(collapse_steps=3).check(4, {name: value})


def test_a_line_tells_what_is_known() -> None:
    assert line({"step": 3, "pass_rate": 0.5, "confidence/ece": None}, steps=9).startswith(
        "step 3/9  right 50 %  reward –  stated –  ECE –"
    )


def test_the_package_and_its_light_modules_load_without_torch() -> None:
    code = (
        "import sys, corea, corea.train, corea.train.rewards, corea.train.advantages, corea.train.config, "
        "corea.train.data, corea.train.curves, corea.train.rollouts, corea.train.warmup, corea.train.models, "
        "corea.train.export; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
