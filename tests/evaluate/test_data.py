"""Questions with gold answers: from a file, by a packaged name, from a data set of the Hub (here: its folder)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from corea.errors import ExtraMissing, InputError
from corea.evaluate.data import read_graded


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


def repository(folder: Path, *rows: dict[str, Any]) -> str:
    folder.mkdir()
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"hf:{folder}:test"


def test_the_packaged_sample_has_a_name() -> None:
    sample = read_graded(["gsm8k-sample"])
    assert len(sample) == 12
    assert sample[0].gold == "18"
    assert [q.id for q in read_graded(["gsm8k-sample"], limit=2)] == [q.id for q in sample[:2]]


def test_a_file_of_the_samples_name_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("gsm8k-sample").write_text('{"id": "mine", "question": "1 + 1", "answer": 2}\n')
    assert [q.id for q in read_graded(["gsm8k-sample"])] == ["mine"]


def test_a_source_that_is_nothing_names_what_there_is() -> None:
    with pytest.raises(InputError, match=r"neither a file nor .*gsm8k-sample.*hf:owner/name:split"):
        read_graded(["gsm8k"])


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(
    "row,question,gold,kind",
    [
        ({"question": "2 + 2", "answer": "2 and 2 is 4\n#### 4"}, "2 + 2", "4", "number"),
        ({"problem": "x?", "solution": "so $x = \\boxed{\\frac{1}{2}}$."}, "x?", "\\frac{1}{2}", "number"),
        (
            {"question": "Sky?", "choices": {"label": ["A", "B"], "text": ["blue", "red"]}, "answerKey": "A"},
            "Sky?\nA) blue\nB) red",
            "A",
            "choice",
        ),
        ({"question": "Sky?", "choices": ["red", "blue"], "answer": 1}, "Sky?\nA) red\nB) blue", "B", "choice"),
        ({"question": "Is it?", "answer": True}, "Is it?", "yes", "boolean"),
    ],
)
def test_the_usual_columns_of_hub_data_sets_are_understood(
    tmp_path: Path, row: dict[str, Any], question: str, gold: str, kind: str
) -> None:
    (found,) = read_graded([repository(tmp_path / "toy", row)])
    assert (found.question, found.gold, found.kind, found.task) == (question, gold, kind, "toy")


@pytest.mark.usefixtures("offline")
def test_a_limit_holds_for_a_hub_data_set(tmp_path: Path) -> None:
    source = repository(tmp_path / "toy", *({"question": str(i), "answer": str(i)} for i in range(9)))
    assert [q.id for q in read_graded([source], limit=3)] == ["toy-1", "toy-2", "toy-3"]


@pytest.mark.usefixtures("offline")
def test_a_hub_data_set_without_gold_answers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match='no "answer" to grade by'):
        read_graded([repository(tmp_path / "toy", {"question": "why?"})])


@pytest.mark.usefixtures("offline")
def test_a_hub_data_set_without_questions_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match='"question" is missing'):
        read_graded([repository(tmp_path / "toy", {"text": "why?"})])


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("split", ["nosuch", ""])
def test_a_split_that_is_not_there_is_told_in_one_line(tmp_path: Path, split: str) -> None:
    source = repository(tmp_path / "toy", {"question": "a", "answer": "b"}).removesuffix("test") + split
    with pytest.raises(InputError, match="check its name, its split") as caught:
        read_graded([source])
    assert "\n" not in str(caught.value)


def test_without_the_extra_a_hub_data_set_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(ExtraMissing, match=r"corea\[hub\]"):
        read_graded(["hf:openai/gsm8k/main:test"])
