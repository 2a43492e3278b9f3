"""Two processes make the same group statistics and advantages as one, with a group split between them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("trl", reason="the train extra is not installed: see docs/training.md")

TESTS = Path(__file__).parent.parent


def test_two_processes_make_the_same_advantages_as_one(tmp_path: Path) -> None:
    child = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "child.py"), str(tmp_path / "scored")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert child.returncode == 0, child.stderr[-3000:]
    alone, *pair = (dict(np.load(tmp_path / f"scored-{name}.npz")) for name in ("1-0", "2-0", "2-1"))
    for ours in pair:
        for name in ("reasoning", "frame", "confidence", "figures"):
            assert np.array_equal(ours[name], alone[name]), name
    for name in ("gold", "tokens"):
        assert np.array_equal(np.concatenate([ours[name] for ours in pair]), alone[name]), name
    # Six rows each, of groups of four: the second group is half here, half there.
    assert list(pair[0]["gold"]) == ["0"] * 4 + ["2"] * 2
    assert np.count_nonzero(alone["confidence"]) >= 8
    assert len(set(alone["tokens"])) > 8
