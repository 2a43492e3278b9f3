"""``corea batch`` with other engines, formats and places than JSON lines on this disk."""

from __future__ import annotations

import importlib.util
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cli.test_cli import config_for, corea
from faults.endpoint import served_from_a_thread

HAS_RAY = importlib.util.find_spec("ray") is not None


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Path]:
    """A folder with questions, and a corea.toml whose endpoint works."""
    with served_from_a_thread() as endpoint:
        (tmp_path / "corea.toml").write_text(config_for(endpoint))
        lines = [json.dumps({"id": n, "question": f"{n}?", "answer": 42}) for n in range(9)]
        (tmp_path / "in.jsonl").write_text("\n".join([*lines, "oops"]) + "\n")
        yield tmp_path


def test_parquet_goes_in_and_comes_out(here: Path) -> None:
    pq.write_table(pa.table({"id": [1, 2], "question": ["?", "??"], "answer": ["42", "43"]}), here / "in.parquet")
    done = corea("batch", "in.parquet", "out.parquet", "--json", cwd=here)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["accuracy"] == 0.5
    assert pq.read_table(here / "out.parquet").column("correct").to_pylist() == [True, False]


def test_a_url_is_a_place_too(here: Path) -> None:
    done = corea("batch", f"file://{here}/in.jsonl", f"local://{here}/out.jsonl", cwd=here)
    assert done.returncode == 1
    assert "bad lines  1 (each has a row with its error)" in done.stdout
    assert (here / "out.jsonl").read_text().count("\n") == 10


@pytest.mark.parametrize(
    "args,why",
    [
        (("--workers", "2"), "--workers needs --engine ray"),
        (("--pool", "large=1"), "--pool needs --engine ray"),
        (("--tier-concurrency", "large"), "--tier-concurrency large: write a tier and a number from 1 up"),
        (("--tier-concurrency", "large=0"), "--tier-concurrency large=0: write a tier and a number from 1 up"),
        (("--tier-concurrency", "tiny=1"), 'no tier is called "tiny"; there are: small, large'),
    ],
)
def test_options_that_mean_nothing_here_are_told(here: Path, args: tuple[str, ...], why: str) -> None:
    done = corea("batch", "in.jsonl", "out.jsonl", *args, cwd=here)
    assert done.returncode == 1
    assert why in done.stderr
    assert not (here / "out.jsonl").exists()


@pytest.mark.skipif(HAS_RAY, reason="ray is installed")
def test_without_ray_its_engine_says_what_to_install(here: Path) -> None:
    done = corea("batch", "in.jsonl", "out", "--engine", "ray", cwd=here)
    assert done.stderr == "error: ray is not installed; run: pip install 'corea[ray]'\n"
    assert not (here / "out").exists()


@pytest.mark.skipif(not HAS_RAY, reason="needs ray")
def test_the_engine_ray_writes_parts_and_goes_on_with_them(here: Path) -> None:
    # Sockets lie in it, and their paths may not be long.
    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")
    command = (
        "batch",
        "in.jsonl",
        "out",
        "--engine",
        "ray",
        "--shard-rows",
        "4",
        "--format",
        "parquet",
        "--workers",
        "1",
    )
    try:
        done = corea(*command, "--json", cwd=here, env={"RAY_TMPDIR": folder})
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    assert done.returncode == 1, done.stderr
    assert "in.jsonl: line 10: not JSON" in done.stderr
    summary = json.loads(done.stdout)
    assert (summary["rows"], summary["correct"], summary["bad_lines"]) == (9, 9, 1)
    assert len(pq.read_table(here / "out" / "part-000002.parquet")) == 2
    named = corea("batch", "in.jsonl", "out.jsonl", "--engine", "ray", cwd=here)
    assert "writes a folder of parts" in named.stderr
