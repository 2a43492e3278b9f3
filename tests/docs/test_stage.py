"""The stage itself: what fails on it, fails the page."""

from __future__ import annotations

import pytest

from docs.fences import Block
from docs.stage import Stage, missing_lines


def block(text: str, *, language: str = "", title: str | None = None) -> Block:
    return Block(page="docs/some.md", line=1, language=language, title=title, text=text, not_run=None)


def test_a_command_that_fails_ends_the_page_with_what_it_said(stage: Stage) -> None:
    with pytest.raises(AssertionError, match="(?s)docs/some.md:1: exit code 3.*this went wrong"):
        stage.run("echo this went wrong; (exit 3)\necho not reached", where="docs/some.md:1")
    assert "not reached" not in stage.said.replace("echo not reached", "")


def test_a_block_goes_on_where_the_last_one_was_with_its_variables(stage: Stage) -> None:
    stage.run("mkdir deeper && cd deeper\nexport KEPT=so")
    stage.take(block("one\n", title="file.txt"))
    assert stage.run('echo "$KEPT $(cat file.txt) $(basename "$PWD")"') == "so one deeper\n"


def test_a_variable_of_a_line_alone_does_not_stay(stage: Stage) -> None:
    stage.run("GONE=so true")
    assert stage.run('echo "${GONE:-none}"') == "none\n"


def test_pip_installs_nothing_and_knows_which_extras_there_are(stage: Stage) -> None:
    stage.run("pip install 'corea[serve,otel]'\npip install '.[evaluate]'\npip install torch")
    with pytest.raises(AssertionError, match="cannot tell whether"):
        stage.run("pip install 'corea[servee]'")


def test_output_is_compared_line_by_line_in_order() -> None:
    said = "one  two\nthree\nfour\n"
    assert missing_lines("one two\nfour\n", said) == []
    assert missing_lines("four\none two\n", said) == ["one two"]
    assert missing_lines("five\n", said) == ["five"]


@pytest.mark.parametrize(
    "text,language,commands",
    [
        ("corea ask x\n", "", True),
        ("OTEL=1 corea serve\n", "", True),
        ("COREA small\n", "", False),
        ("corea ask x\n", "text", False),
        ("anything\n", "sh", True),
    ],
)
def test_commands_are_told_from_what_they_print(text: str, language: str, commands: bool) -> None:
    assert block(text, language=language).is_commands == commands
