"""``corea certify``, ``eval import`` and ``eval fit`` on the command line: what they print, and how they refuse."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from corea.cli import main
from corea.evaluate.outcomes import CONFIDENCE, write
from corea.policy.certificate import load
from faults.endpoint import FaultyEndpoint, served_from_a_thread

Rows = list[dict[str, Any]]
Corea = Callable[..., "Done"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What a command printed, and its exit code."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """Strictly: other parsers know no NaN."""
        return json.loads(self.stdout, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))

    @property
    def refusal(self) -> str:
        """The one line on stderr of a command that refused; nothing is on stdout."""
        assert (self.code, self.stdout) == (1, "")
        assert self.stderr.startswith("error: ")
        assert self.stderr.count("\n") == 1
        return self.stderr


@pytest.fixture
def corea(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Corea:
    """Runs the command in this process, in the test's own folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")

    def run(*args: str) -> Done:
        monkeypatch.setattr("sys.argv", ["corea", *args])
        code = 0
        try:
            main()
        except SystemExit as exc:
            code = int(exc.code or 0)
        printed = capsys.readouterr()
        return Done(code=code, stdout=printed.out, stderr=printed.err)

    return run


def rows(n: int = 300, *, tasks: tuple[str, ...] = ("toy",), wrong_below: float = 0.2) -> Rows:
    """A small model that is wrong where its confidence is below a fifth, and a large one that never is."""
    made: Rows = []
    for i in range(n):
        sure = (i * 37 % 101) / 101
        common = {"id": f"q{i}", "task": tasks[i % len(tasks)], "question": f"say {i}", "gold": str(i)}
        small = {
            "tier": "small",
            "correct": float(sure >= wrong_below),
            "cost_nano_usd": 1,
            CONFIDENCE + "logprob": sure,
        }
        made += [{**common, **small}, {**common, "tier": "large", "correct": 1.0, "cost_nano_usd": 20}]
    return made


def outcomes(given: Rows, name: str = "o.parquet", *, signals: tuple[str, ...] = ("logprob",), **metadata: Any) -> str:
    write(Path(name), given, metadata={"tiers": ["small", "large"], "data_hash": "d1", **metadata}, signals=signals)
    return name


def lines(given: Rows, name: str = "in.jsonl") -> str:
    """The same as another tool would have recorded it."""
    with Path(name).open("w") as file:
        for row in given:
            plain = {key: row[key] for key in ("id", "tier", "correct", "task", "question") if key in row}
            confidence = {key.removeprefix(CONFIDENCE): row[key] for key in row if key.startswith(CONFIDENCE)}
            cost = {"cost_usd": row["cost_nano_usd"] / 1e9} if row.get("cost_nano_usd") is not None else {}
            file.write(json.dumps({**plain, "confidence": confidence, **cost}) + "\n")
    return name


def left_behind() -> set[str]:
    return {path.name for path in Path().iterdir()} - {"home"}


# What it prints -------------------------------------------------------------------------------------------------------

WANTED = ("threshold", "method", "n", "max_drop", "delta", "expected_saving", "needed_n")


def test_json_holds_the_promise_and_what_it_was_made_from(corea: Corea) -> None:
    told = corea("certify", outcomes(rows()), "--out", "c.json", "--json").json
    assert set(WANTED) <= set(told)
    assert (told["n"], told["max_drop"], told["delta"], told["needed_n"]) == (300, 0.02, 0.05, None)
    assert 0 < told["threshold"] <= 0.2
    assert told["expected_saving"] == pytest.approx(told["kept"] / 300 - 1 / 20)
    assert (told["signal"], told["left_out"], told["data_hash"]) == ("logprob", 0, "d1")
    assert load(Path("c.json")).promises[0].certified.threshold == told["threshold"]


def test_where_nothing_can_be_promised_the_threshold_is_null_and_the_exit_code_0(corea: Corea) -> None:
    told = corea("certify", outcomes(rows(30)), "--out", "c.json", "--json").json
    assert told["threshold"] is None
    assert (told["expected_saving"], told["expected_deferral_rate"]) == (0.0, 1.0)
    assert told["needed_n"] > 100
    plain = corea("certify", "o.parquet", "--out", "c.json")
    assert plain.code == 0
    for words in (
        "threshold        null: always defer",
        "expected saving  0.0%, net",
        f"needed           {told['needed_n']} questions",
        "exact score-ordered net-drop test, walk, n = 30, max drop = 0.02, δ = 0.05",
        "Nothing can be promised with these 30 questions",
    ):
        assert words in plain.stdout


def test_the_words_say_all_that_the_json_does_and_what_to_write_into_the_configuration(corea: Corea) -> None:
    named = outcomes(rows(), shapes=[{"kind": "x"}, {"kind": "y"}])
    told = corea("certify", named, "--out", "c.json", "--json").json
    plain = corea("certify", named, "--out", "c.json").stdout
    for words in (
        "small → large, by logprob, 300 questions",
        f"threshold        {told['threshold']!r} and above are kept",
        f"expected saving  {told['expected_saving']:.1%}, net",
        "n = 300, max drop = 0.02, δ = 0.05",
        "With probability at least 95 %, the cascade loses at most 2 points",
    ):
        assert words in plain
    settings = tomllib.loads(plain.partition("instead of a threshold:\n")[2])
    # Without the replies' texts no guard was asked, so none may be in force.
    assert settings == {"certificate": "c.json", "confidence": {"estimator": "logprob"}, "guards": []}


@pytest.mark.parametrize(
    "signal,samples,confidence",
    [
        ("p_true", 0, {"estimator": "p_true"}),
        ("expected_followup", 0, {"estimator": "expected", "ask": "followup"}),
        ("self_consistency", 8, {"estimator": "self_consistency", "samples": 8}),
    ],
)
def test_the_configuration_that_it_proposes_is_toml_for_its_signal(
    corea: Corea, signal: str, samples: int, confidence: dict[str, Any]
) -> None:
    given = [{**row, CONFIDENCE + signal: row.pop(CONFIDENCE + "logprob", None)} for row in rows()]
    named = outcomes(given, signals=(signal,), samples=samples, shapes=[{"kind": "x"}, {"kind": "y"}])
    out = 'my "best" [one].json'
    plain = corea("certify", named, "--out", out).stdout
    settings = tomllib.loads(plain.partition("instead of a threshold:\n")[2])
    assert settings == {"certificate": out, "confidence": confidence, "guards": []}


def replies(given: Rows, *, cut: int = 10) -> Rows:
    """The rows with their texts; every ``cut``-th reply stops within a block of code."""
    for index, row in enumerate(given):
        row["text"] = "```\n42" if index // 2 % cut == 0 else f"It is {row['gold']}.\nAnswer: {row['gold']}"
    return given


def test_answers_that_a_guard_objects_to_count_as_deferred(corea: Corea) -> None:
    named = outcomes(replies(rows()), shapes=[{"kind": "x"}, {"kind": "y"}])
    bare = corea("certify", named, "--guard", "none", "--out", "bare.json", "--json").json
    told = corea("certify", named, "--out", "c.json", "--json").json
    assert told["kept"] < bare["kept"]
    assert load(Path("bare.json")).guards == ()
    assert load(Path("c.json")).guards[:2] == ("cut_off", "confidence_missing")
    some = corea("certify", named, "--guard", "refusal", "--out", "d.json").stdout
    assert tomllib.loads(some.partition("instead of a threshold:\n")[2])["guards"] == ["refusal"]
    usual = corea("certify", named, "--out", "c.json").stdout
    assert "guards" not in tomllib.loads(usual.partition("instead of a threshold:\n")[2])
    assert (
        "there is no guard 'sleep'; there are: cut_off"
        in corea("certify", named, "--guard", "sleep", "--out", "e.json").refusal
    )


def test_a_domain_of_questions_is_learned_and_certified_with(corea: Corea) -> None:
    questions = [{"id": f"d{i}", "question": f"say {'x' * (i % 90)} {i}", "answer": "1"} for i in range(200)]
    Path("seen.jsonl").write_text("".join(json.dumps(row) + "\n" for row in questions))
    told = corea("eval", "domain", "seen.jsonl", "--out", "domain.json").stdout
    assert 'domain = "domain.json"' in told
    assert "200 questions" in told
    given = replies(rows())
    for row in given[:60]:
        row["question"] = "Wer hat den längsten Bart von allen?"
    named = outcomes(given, shapes=[{"kind": "x"}, {"kind": "y"}])
    plain = corea("certify", named, "--domain", "domain.json", "--out", "c.json").stdout
    assert load(Path("c.json")).guards[-1].startswith("unlike_certified:0.01:")
    assert tomllib.loads(plain.partition("instead of a threshold:\n")[2])["domain"] == "domain.json"
    without = load(Path("c.json")).promises[0].certified.kept
    corea("certify", named, "--out", "c.json")
    assert load(Path("c.json")).promises[0].certified.kept > without


@pytest.mark.parametrize(
    "lines,said",
    [
        ("{\n", "a line of the questions cannot be read"),
        ('{"id": "a", "question": "x", "answer": "1"}\n', "certify more"),
    ],
)
def test_a_domain_of_too_little_is_refused_and_nothing_written(corea: Corea, lines: str, said: str) -> None:
    Path("seen.jsonl").write_text(lines)
    assert said in corea("eval", "domain", "seen.jsonl", "--out", "domain.json").refusal
    assert left_behind() == {"seen.jsonl"}


def test_long_paths_are_printed_in_one_piece(corea: Corea) -> None:
    folder = Path("x" * 200) / ("y" * 100)
    folder.mkdir(parents=True)
    named = outcomes(rows(), shapes=[{"kind": "x"}, {"kind": "y"}])
    plain = corea("certify", named, "--out", str(folder / "c.json")).stdout
    assert f'certificate = "{folder / "c.json"}"\n' in plain


def test_foreign_outcomes_certify_and_it_is_said_that_no_cascade_runs_by_it(corea: Corea) -> None:
    done = corea("eval", "import", lines(rows()), "--out", "o.parquet")
    assert "600 rows, 300 questions, small → large (logprob) in o.parquet" in done.stdout
    plain = corea("certify", "o.parquet", "--out", "c.json").stdout
    assert "no cascade runs by it" in plain
    assert "instead of a threshold" not in plain


def test_without_a_signal_the_best_is_chosen_on_other_questions_and_that_is_said(corea: Corea) -> None:
    given = rows(900)
    for row in given[::2]:
        row[CONFIDENCE + "noise"] = (int(row["id"][1:]) * 61 % 97) / 97
    named = outcomes(given, signals=("noise", "logprob"))
    told = corea("certify", named, "--out", "c.json", "--json").json
    assert told["signal"] == "logprob"
    assert told["n"] + told["signal_chosen_on"] == 900
    chosen = f"logprob was chosen on {told['signal_chosen_on']} other questions; --signal names one instead"
    assert chosen in corea("certify", named, "--out", "c.json").stdout
    assert corea("certify", named, "--out", "c.json", "--signal", "noise", "--json").json["n"] == 900


def test_by_task_each_is_shown_and_those_with_a_handful_of_rows_say_what_they_lack(corea: Corea) -> None:
    given = rows(400)
    for row in given[:12]:
        row["task"] = "[rare]"
    done = corea("certify", outcomes(given), "--out", "c.json", "--by", "task", "--json")
    rare, toy = done.json["tasks"]
    assert (rare["task"], rare["n"], rare["threshold"]) == ("[rare]", 6, None)
    assert (toy["task"], toy["n"], toy["threshold"] is None) == ("toy", 394, False)
    assert all(set(WANTED) <= set(one) for one in (rare, toy))
    plain = corea("certify", "o.parquet", "--out", "c.json", "--by", "task").stdout
    assert "\n[rare]\n  threshold        null" in plain
    assert "Nothing can be promised with these 6 questions" in plain
    shared = corea("certify", "o.parquet", "--out", "c.json", "--by", "task", "--split-delta", "--json").json
    assert [one["delta"] for one in shared["tasks"]] == [0.025, 0.025]


def test_more_tasks_than_fit_a_screen_are_in_the_file(corea: Corea) -> None:
    many = tuple(f"task {i}" for i in range(40))
    plain = corea("certify", outcomes(rows(80, tasks=many)), "--out", "c.json", "--by", "task").stdout
    assert "… and 10 tasks more, in c.json" in plain
    assert len(load(Path("c.json")).promises) == 40


def test_questions_left_out_are_counted(corea: Corea) -> None:
    given = rows()
    given[1]["error"] = "HTTP 500"
    named = outcomes(given)
    assert "1 of 300 questions lack an answer of small or large" in corea("certify", named, "--out", "c.json").refusal
    done = corea("certify", named, "--out", "c.json", "--drop-incomplete", "--json")
    assert "1 questions were left out: a tier did not answer them" in done.stderr
    assert (done.json["n"], done.json["left_out"]) == (299, 1)


def test_all_equal_confidences_keep_a_share_by_hash(corea: Corea) -> None:
    given = rows()
    for row in given[::2]:
        row |= {CONFIDENCE + "logprob": 0.9, "correct": float(int(row["id"][1:]) % 20 != 0)}
    plain = corea("certify", outcomes(given), "--out", "c.json").stdout
    certified = load(Path("c.json")).promises[0].certified
    assert certified.threshold == 0.9
    assert 0 < certified.tie_fraction < 1
    assert f"0.9 and above are kept, and of those exactly there {certified.tie_fraction:.1%}" in plain


@pytest.mark.parametrize("grade", [0.0, 1.0])
def test_one_class_is_certified_and_fitted_and_what_is_undefined_is_said(corea: Corea, grade: float) -> None:
    named = outcomes([{**row, "correct": grade} if row["tier"] == "small" else row for row in rows()])
    assert (corea("certify", named, "--out", "c.json", "--json").json["threshold"] is None) == (grade == 0.0)
    fitted = corea("eval", "fit", named, "--out", "m.json")
    assert fitted.code == 0
    word = "right" if grade else "wrong"
    assert f"no AUROC: every answer is {word}: nothing to rank" in fitted.stdout
    note = corea("eval", "fit", named, "--out", "m.json", "--json").json["after"]["auroc"]
    assert (note["value"], note["note"]) == (None, f"every answer is {word}: nothing to rank")


def test_a_map_is_fitted_checked_and_certified_on_other_questions(corea: Corea) -> None:
    named = outcomes(rows(800))
    fitted = corea("eval", "fit", named, "--out", "m.json", "--kind", "isotonic", "--share", "0.3")
    assert "fitted on" in fitted.stdout
    assert "certify it with: corea certify … --map m.json" in fitted.stdout
    again = corea("eval", "fit", named, "--out", "m.json", "--kind", "isotonic", "--share", "0.3", "--json").json
    told = corea("certify", named, "--out", "c.json", "--map", "m.json", "--json").json
    assert told["signal"].startswith("fitted:")
    assert told["n"] == again["n_check"] == 800 - again["map"]["n"]


def test_names_are_printed_as_they_are(corea: Corea) -> None:
    """Signals and tasks are other people's words: in brackets they are no markup."""
    given = [{**row, CONFIDENCE + "[/x]": row.get(CONFIDENCE + "logprob")} for row in rows()]
    named = outcomes(given, signals=("[/x]",))
    assert "by [/x], 300 questions" in corea("certify", named, "--out", "c.json").stdout
    assert "[/x]" in corea("eval", "fit", named, "--out", "m.json").stdout


# What it refuses ------------------------------------------------------------------------------------------------------


def with_row(at: int, **changes: Any) -> Callable[[Rows], Any]:
    return lambda given: given[at].update(changes)


@pytest.mark.parametrize(
    "spoil,said",
    [
        (lambda given: given.append(given[0]), '"q0" has 2 rows of tier "small"; leave one of each'),
        (lambda given: given.pop(1), "1 of 300 questions lack an answer of small or large"),
        (with_row(0, **{CONFIDENCE + "logprob": 1.5}), 'confidence.logprob of "q0", tier "small" is 1.5'),
        (with_row(0, **{CONFIDENCE + "logprob": float("nan")}), "is nan; it must lie in [0, 1], or be null"),
        (with_row(1, correct=-1.0), 'correct of "q0", tier "large" is -1'),
        (with_row(1, question="say something else"), '"q0" has another question in tier small than in large'),
        (with_row(0, correct=0.5), "correctness must be 0 or 1 to certify"),
        (
            lambda given: [row.pop(CONFIDENCE + "logprob", None) for row in given],
            "no row of tier small holds a confidence",
        ),
        (lambda given: given.clear(), "no question was answered by both tiers"),
    ],
)
def test_bad_rows_are_one_line_and_no_certificate(corea: Corea, spoil: Callable[[Rows], Any], said: str) -> None:
    given = rows()
    spoil(given)
    named = outcomes(given)
    assert said in corea("certify", named, "--out", "c.json").refusal
    assert left_behind() == {"o.parquet"}


def half(given: Rows, which: int) -> Rows:
    return [row for row in given if int(row["id"][1:]) % 2 == which]


@pytest.mark.parametrize(
    "other,said",
    [
        ({"shape_hashes": {"small": "s1", "large": "l2"}}, 'mix models or prompts: tier "large" was not the same'),
        ({"tiers": ["tiny", "small", "large"]}, "the files hold other tiers"),
        ({"samples": 5}, "other samples of self-consistency"),
    ],
)
def test_files_that_mix_models_prompts_or_samples_are_refused(corea: Corea, other: dict[str, Any], said: str) -> None:
    hashes = {"small": "s1", "large": "l1"}
    one = outcomes(half(rows(), 0), "a.parquet", shape_hashes=hashes)
    two = outcomes(half(rows(), 1), "b.parquet", shape_hashes=hashes)
    assert corea("certify", one, two, "--out", "c.json", "--json").json["n"] == 300
    Path("c.json").unlink()
    outcomes(half(rows(), 1), "b.parquet", **{"shape_hashes": hashes, **other})
    assert said in corea("certify", one, two, "--out", "c.json").refusal
    assert said in corea("eval", "fit", one, two, "--out", "m.json").refusal
    assert '"q0" has 2 rows of tier "small"' in corea("certify", one, one, "--out", "c.json").refusal
    assert left_behind() == {"a.parquet", "b.parquet"}


@pytest.mark.parametrize(
    "content,said",
    [
        (b"", "is not a readable Parquet file"),
        (b"PAR1 but not really PAR1", "is not a readable Parquet file"),
        (None, "is not a readable Parquet file"),
    ],
)
def test_a_damaged_file_is_one_line_and_no_certificate(corea: Corea, content: bytes | None, said: str) -> None:
    named = Path(outcomes(rows()))
    whole = named.read_bytes()
    middle = whole[:100] + bytes([whole[100] ^ 255]) + whole[101:]
    named.write_bytes(middle if content is None else content)
    for verb in (("certify",), ("eval", "fit")):
        refusal = corea(*verb, "o.parquet", "--out", "c.json").refusal
        assert said in refusal
        assert "make it again with: corea eval run" in refusal
    assert left_behind() == {"o.parquet"}


@pytest.mark.parametrize(
    "args,said",
    [
        (("--signal", "p_true"), "no confidence signal 'p_true'; they hold: logprob"),
        (("--signal", "logprob", "--map", "m.json"), "--map brings its own signal; leave out --signal"),
        (("--map", "m.json"), "m.json cannot be read (No such file or directory); fit a confidence map first"),
        (("--map", "o.parquet"), "o.parquet is damaged: it is not JSON"),
        (("--split-delta",), "--split-delta shares delta among tasks; add --by task"),
        (("--small", "tiny"), 'no tier "tiny"; they hold: small, large'),
        (("--small", "large"), '"large" cannot defer to itself'),
        (("--max-drop", "0"), "the accuracy that may be lost must lie between 0 and 1 (0.02 is two points), not 0"),
        (("--delta", "1"), "delta"),
        (("--out", "none/c.json"), "cannot write none/c.json: No such file or directory; choose another --out"),
        (("--out", "o.parquet"), "o.parquet is one of the inputs; choose another --out"),
    ],
)
def test_options_that_cannot_be_are_one_line_and_no_certificate(corea: Corea, args: tuple[str, ...], said: str) -> None:
    before = Path(outcomes(rows())).read_bytes()
    assert said in corea("certify", "o.parquet", "--out", "c.json", *args).refusal
    assert left_behind() == {"o.parquet"}
    assert Path("o.parquet").read_bytes() == before


def test_a_folder_is_no_output_and_half_a_command_no_command(corea: Corea) -> None:
    outcomes(rows())
    whole = ("certify", "o.parquet", "--out", "c.json")
    for args in (whole[:2], whole[2:], (*whole[:3], "."), (*whole, "--delta", "nan"), (*whole, "--max-drop", "2")):
        assert corea(*args).code == 2
    assert left_behind() == {"o.parquet"}


@pytest.mark.parametrize(
    "args,said",
    [
        (("--kind", "platt", "--signal", "logprob", "--signal", "p_true"), "'p_true'; they hold: logprob"),
        (("--out", "none/m.json"), "cannot write none/m.json: No such file or directory; choose another --out"),
        (("--out", "o.parquet"), "o.parquet is one of the inputs; choose another --out"),
    ],
)
def test_a_map_that_cannot_be_fitted_is_one_line_and_no_file(corea: Corea, args: tuple[str, ...], said: str) -> None:
    outcomes(rows())
    assert said in corea("eval", "fit", "o.parquet", "--out", "m.json", *args).refusal
    assert left_behind() == {"o.parquet"}


def test_a_handful_of_rows_fits_no_map(corea: Corea) -> None:
    refusal = corea("eval", "fit", outcomes(rows(20)), "--out", "m.json").refusal
    assert "questions with a known confidence to fit on; 20 are needed" in refusal
    few = [{**row, CONFIDENCE + "noise": row.get(CONFIDENCE + "logprob")} for row in rows(1)]
    refusal = corea("certify", outcomes(few, signals=("logprob", "noise")), "--out", "c.json").refusal
    assert "1 questions are too few to choose a signal on; name one with --signal" in refusal
    assert left_behind() == {"o.parquet"}


@pytest.mark.parametrize(
    "line,said",
    [
        ({"id": "q0", "tier": "small", "correct": 1}, 'line 2: "q0" has a row of tier "small" already'),
        ({"id": "q1", "correct": 1}, "line 2: tier: field required"),
        ({"id": "q1", "tier": "small", "correct": 1, "confidence": 1.5}, "confidence: input should be less than"),
        ({"id": "q1", "tier": "small", "correct": 1, "confidence": float("nan")}, "a finite number, not nan"),
        ({"id": "q1", "tier": "small"}, "line 2: correct: field required"),
        ("oops", "line 2: not a JSON object"),
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_a_foreign_line_that_cannot_be_is_named_and_nothing_is_written(
    corea: Corea, line: Any, said: str, zipped: bool
) -> None:
    good = json.dumps({"id": "q0", "tier": "small", "correct": 1})
    content = f"{good}\n{json.dumps(line)}\n".encode()
    Path("in.jsonl").write_bytes(gzip.compress(content) if zipped else content)
    assert said in corea("eval", "import", "in.jsonl", "--out", "o.parquet").refusal
    assert left_behind() == {"in.jsonl"}


def test_what_an_import_leaves_out_is_counted_and_an_unknown_order_of_tiers_is_said(corea: Corea) -> None:
    given = [{"id": 1, "tier": tier, "correct": 1, "prompt": "?", "seed": 3} for tier in ("b", "a")]
    Path("in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in given))
    done = corea("eval", "import", "in.jsonl", "--out", "o.parquet")
    assert "keys that outcomes have no place for were left out: prompt (2 lines), seed (2 lines)" in done.stderr
    assert "a tier's cost is not known, so the order of the tiers is that of the file: b → a" in done.stderr
    told = corea("eval", "import", "in.jsonl", "--out", "o.parquet", "--json").json
    assert told["ignored"] == {"prompt": 2, "seed": 2}
    assert (told["rows"], told["tiers"], told["signals"]) == (2, ["b", "a"], [])


@pytest.mark.parametrize(
    "line,said",
    [
        ({"id": "q0", "question": "?"}, '"q0" has no "answer" to grade by'),
        ({"id": "q0", "answer": 3}, 'line 1: "question" is missing'),
    ],
)
def test_a_data_set_without_gold_answers_is_refused_before_a_model_is_asked(
    corea: Corea, line: dict[str, Any], said: str
) -> None:
    Path("in.jsonl").write_text(json.dumps(line) + "\n")
    assert said in corea("eval", "run", "--data", "in.jsonl", "--out", "o.parquet").refusal
    assert left_behind() == {"in.jsonl"}


def test_questions_are_never_written_over(corea: Corea) -> None:
    Path("in.jsonl").write_text(json.dumps({"id": "q0", "question": "?", "answer": 3}) + "\n")
    refusal = corea("eval", "run", "--data", "in.jsonl", "--out", "./in.jsonl").refusal
    assert "in.jsonl is one of the inputs; choose another --out" in refusal
    refusal = corea("eval", "import", "in.jsonl", "--out", "in.jsonl").refusal
    assert "in.jsonl is the input; choose another --out" in refusal
    assert json.loads(Path("in.jsonl").read_text())["id"] == "q0"


# From questions to a cascade ------------------------------------------------------------------------------------------


def config_for(endpoint: FaultyEndpoint, small: str = "threshold = 0.5", more: str = "") -> str:
    common = f'kind = "openai"\nbase_url = "{endpoint.base_url}"\nmodel = "m"\nmax_retries = 0\n'
    return (
        f'[[tiers]]\nname = "small"\n{common}{small}\n{more}prices = {{ input = 1, output = 1 }}\n'
        f'[[tiers]]\nname = "large"\n{common}prices = {{ input = 40, output = 40 }}\n'
    )


@pytest.fixture
def endpoint(corea: Corea) -> Iterator[FaultyEndpoint]:
    """A server that answers 42, and a corea.toml for it; the ledger is not looked at here."""
    with served_from_a_thread() as running:
        Path("corea.toml").write_text(config_for(running))
        Path("in.jsonl").write_text(
            "".join(json.dumps({"id": f"q{i}", "question": f"6 × 7? ({i})", "answer": 42, "task": "toy"}) + "\n"
                    for i in range(160))
        )  # fmt: skip
        yield running


def test_measured_certified_and_run(corea: Corea, endpoint: FaultyEndpoint) -> None:
    measured = corea("eval", "run", "--data", "in.jsonl", "--out", "o.parquet", "--concurrency", "16", "--json")
    assert measured.json["failed"] == 0
    plain = corea("certify", "o.parquet", "--out", "c.json", "--signal", "logprob").stdout
    settings = plain.partition("instead of a threshold:\n\n")[2]
    Path("corea.toml").write_text(config_for(endpoint, settings))
    assert "fine, 2 tiers" in corea("config", "check").stdout
    asked = len(endpoint.requests)
    kept = corea("ask", "6 × 7?", "--task", "toy", "--explain")
    assert "Kept the answer of small: its confidence" in kept.stdout
    assert len(endpoint.requests) == asked + 1
    other = corea("ask", "6 × 7?", "--task", "law")
    assert 'what it promises was not shown for task "law"' in " ".join(other.stderr.split())
    assert "Deferred from small" in corea("ask", "6 × 7?", "--threshold", "0.99", "--explain").stdout
    # The certificate of another model or prompt is refused, and one may still measure anew, or set a threshold.
    Path("corea.toml").write_text(config_for(endpoint, settings, "max_tokens = 9\n"))
    for args in (("ask", "6 × 7?"), ("config", "check"), ("batch", "in.jsonl", "out.jsonl")):
        assert "c.json was made for other models or sampling settings" in corea(*args).refusal
    assert corea("ask", "6 × 7?", "--threshold", "0.5").code == 0
    again = corea("eval", "run", "--data", "in.jsonl", "--limit", "2", "--out", "p.parquet")
    assert again.stdout == "2 questions × 2 tiers in p.parquet\n"


def test_without_a_promise_the_small_tier_is_not_asked(corea: Corea, endpoint: FaultyEndpoint) -> None:
    corea("eval", "run", "--data", "in.jsonl", "--limit", "20", "--out", "o.parquet")
    told = corea("certify", "o.parquet", "--out", "c.json", "--signal", "logprob", "--json").json
    assert (told["threshold"], told["needed_n"]) == (None, 150)
    Path("corea.toml").write_text(config_for(endpoint, 'certificate = "c.json"'))
    asked = len(endpoint.requests)
    trace = corea("ask", "6 × 7?", "--json").json
    assert len(endpoint.requests) == asked + 1
    assert "Skipped small: its certificate promises nothing for this question." in trace["explanation"]
    assert (trace["tier"], trace["saved_nano_usd"]) == ("large", 0)
    assert [attempt["decision"]["reason"] for attempt in trace["attempts"]] == ["not_certified", "last_tier"]


def test_tiers_are_measured_cheapest_first_however_they_are_named(corea: Corea, endpoint: FaultyEndpoint) -> None:
    args = ("eval", "run", "--data", "in.jsonl", "--limit", "3", "--out", "o.parquet", "--tiers", "large, small")
    assert corea(*args, "--json").json["tiers"] == ["small", "large"]


def test_what_is_configured_is_shown_with_paths_that_mean_the_same_anywhere(corea: Corea, tmp_path: Path) -> None:
    Path("sub").mkdir()
    Path("sub/corea.toml").write_text(
        '[[tiers]]\nname = "small"\nkind = "openai"\nbase_url = "http://127.0.0.1:1/v1"\nmodel = "m"\n'
        'certificate = "c.json"\n[[tiers]]\nname = "large"\nkind = "openai"\n'
        'base_url = "http://127.0.0.1:1/v1"\nmodel = "m"\n'
    )
    shown = tomllib.loads(corea("config", "show", "--config", "sub/corea.toml").stdout)
    assert shown["tiers"][0]["certificate"] == str(tmp_path / "sub" / "c.json")


@pytest.mark.parametrize("package", ["pyarrow", "scipy"])
def test_a_missing_extra_is_named_with_the_command_that_installs_it(tmp_path: Path, package: str) -> None:
    code = f"import sys; sys.modules['{package}'] = None; from corea.cli import main; main()"
    command = [sys.executable, "-c", code, "certify", "o.parquet", "--out", "c.json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"error: {package} is not installed; run: pip install 'corea[evaluate]'\n"


@pytest.mark.parametrize("verb", [("certify",), ("eval", "import"), ("eval", "fit")])
def test_each_verb_explains_itself(corea: Corea, verb: tuple[str, ...]) -> None:
    done = corea(*verb, "--help")
    assert done.code == 0
    assert "Usage:" in done.stdout


def test_the_data_of_these_tests_is_what_it_says() -> None:
    confidence = np.array([row[CONFIDENCE + "logprob"] for row in rows() if row["tier"] == "small"])
    assert (confidence < 0.2).mean() == pytest.approx(0.2, abs=0.02)
