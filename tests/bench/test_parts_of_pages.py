"""Pages show what the files say: every figure of docs/results.md is in a generated part, and each is up to date."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.pages import END, ROOT, main, pages, rendered, stale, without_parts, write
from bench.parts import PARTS, made
from bench.registry import BENCH

RESULTS_PAGE = ROOT / "docs" / "results.md"
MARKED = (
    "before\n\n<!-- figures: one -->\nold\n<!-- /figures -->\n\nbetween\n<!-- figures: two -->\n<!-- /figures -->\n"
)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The pages and the files behind them, somewhere else."""
    (tmp_path / "docs").mkdir()
    for page in pages():
        shutil.copy(page, tmp_path / page.relative_to(ROOT))
    (tmp_path / "README.md").touch()
    for folder in ("results", "outcomes"):
        shutil.copytree(BENCH / folder, tmp_path / "bench" / folder)
    return tmp_path


def test_every_page_shows_what_the_files_say() -> None:
    assert [page.name for page in stale()] == [], "run python -m bench.pages"
    assert {"results.md", "gateway.md", "peers.md"} <= {page.name for page in pages()}


@pytest.mark.parametrize(
    "file,old,new",
    [
        ("startup", '"value": 0.', '"value": 1.'),
        ("certify_public", '"saving": 0.', '"saving": 0.9'),
        ("real_outcomes", '"value": 0.', '"value": 0.9'),
        ("gsm8k-60/rows", '"right": true', '"right": false'),
        ("gateway_faults", '"success_rate": 1.0', '"success_rate": 0.5'),
        ("export_parity", '"limit": 0.05', '"limit": 0.001'),
        ("peers", '"saving": 0.', '"saving": 0.9'),
    ],
)
def test_a_file_that_changes_makes_its_page_stale(copy: Path, file: str, old: str, new: str) -> None:
    assert stale(copy, copy / "bench") == {}
    changed = copy / "bench" / "results" / f"{file}.json"
    text = changed.read_text(encoding="utf-8")
    assert old in text
    changed.write_text(text.replace(old, new), encoding="utf-8")
    (page,) = stale(copy, copy / "bench")
    assert page.name == ("peers.md" if file == "peers" else "results.md")
    assert write(copy, copy / "bench") == [page]
    assert stale(copy, copy / "bench") == {}


def test_a_figure_that_somebody_edits_on_the_page_is_found(copy: Path) -> None:
    page = copy / "docs" / "results.md"
    text = page.read_text(encoding="utf-8")
    row = next(line for line in text.splitlines() if line.startswith("| large alone |"))
    page.write_text(text.replace(row, row.replace("of 60", "of 59")), encoding="utf-8")
    assert list(stale(copy, copy / "bench")) == [page]


def test_the_first_comparison_of_gateways_appears_on_both_its_pages(copy: Path) -> None:
    loads = {
        f"{load}{end}": {name: dict.fromkeys(MEASURES, 1.0) for name in SERVERS}
        for load in ("alone", "16 at once", "64 at once")
        for end in ("", ", streamed")
    }
    record = {
        "machine": {"cores": 2, "pinned": True},
        "versions": {"corea": "1", "litellm": "2", "portkey": "3", "node": "4"},
        "rounds": 8,
        "seconds": 450.0,
        "loads": loads,
        "memory_mb": dict.fromkeys(SERVERS, 50.0),
        "figures": [{"name": "memory", "met": True}, {"name": "speed", "met": None}],
    }
    (copy / "bench" / "results" / "gateway_compare.json").write_text(json.dumps(record))
    write(copy, copy / "bench")
    gateway, results = ((copy / "docs" / name).read_text(encoding="utf-8") for name in ("gateway.md", "results.md"))
    assert "## Next to LiteLLM and Portkey" in gateway
    assert "| LiteLLM | 1.00 / 1.00 ms |" in gateway
    assert "Of 1 ratios that are wanted of COREA, 1 are met" in " ".join(results.split())
    assert stale(copy, copy / "bench") == {}


MEASURES = ("added_p50_ms", "added_p99_ms", "added_first_word_p50_ms", "cpu_ms", "requests_per_s")
SERVERS = ("corea", "corea-no-ledger", "bare", "portkey", "litellm")


def test_no_table_and_no_measured_figure_of_the_results_is_written_by_hand() -> None:
    by_hand = without_parts(RESULTS_PAGE.read_text(encoding="utf-8"))
    assert "|---" not in by_hand
    assert [line for line in by_hand.splitlines() if line.startswith("|")] == []
    measured = re.compile(r"\d\s?(%|×|ms|µs|MB|MiB|s\b|points? (more|less)|of \d)|±|0\.\d{2}")
    assert [line for line in by_hand.splitlines() if measured.search(line)] == []


@pytest.mark.parametrize("name", PARTS)
def test_every_part_can_be_made_and_leaves_nothing_open(name: str) -> None:
    text = made(name, bench=BENCH)
    assert not re.search(r"\b(nan|None|TODO|inf)\b|[{}]", text)
    widths = {line.count("|") for line in text.replace(r"\|", "").splitlines() if line.startswith("|---")}
    rows = {line.count("|") for line in text.replace(r"\|", "").splitlines() if line.startswith("|")}
    assert rows == widths


def test_a_part_that_nobody_makes_is_refused_with_the_names_of_the_others() -> None:
    with pytest.raises(ValueError, match="no part 'nobody'; .*gsm8k-60"):
        made("nobody", bench=BENCH)


def test_parts_take_the_place_of_the_old_ones_and_of_nothing_else() -> None:
    text = rendered(MARKED, lambda name: f"| {name} |\n")
    assert text == (
        "before\n\n<!-- figures: one -->\n\n| one |\n\n<!-- /figures -->\n\nbetween\n"
        "<!-- figures: two -->\n\n| two |\n\n<!-- /figures -->\n"
    )
    assert rendered(text, lambda name: "") == MARKED.replace("old\n", "")


@given(st.text(alphabet="ab|\n ", max_size=40), st.text(alphabet="ab|\n ", max_size=40))
def test_writing_twice_changes_nothing(before: str, new: str) -> None:
    once = rendered(f"{before}\n{MARKED}", lambda _: new)
    assert rendered(once, lambda _: new) == once
    assert once.startswith(f"{before}\n")


@pytest.mark.parametrize("text", ["<!-- figures: one -->\nno end\n", MARKED.replace(END, "", 1)])
def test_a_part_without_an_end_is_refused_before_it_eats_the_page(text: str) -> None:
    with pytest.raises(ValueError, match="the part 'one' has no end"):
        rendered(text, lambda _: "")


def test_checking_writes_nothing_and_says_that_all_is_well(capsys: pytest.CaptureFixture[str]) -> None:
    before = RESULTS_PAGE.stat().st_mtime_ns
    assert main(["--check"]) == 0
    assert RESULTS_PAGE.stat().st_mtime_ns == before
    assert capsys.readouterr().out == ""
