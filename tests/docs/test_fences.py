"""What stands in the fenced blocks of README and docs is what it claims to be, whether or not it is run."""

from __future__ import annotations

import ast
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from corea import config
from corea.cli.app import app
from corea.train import config as train_config
from docs.fences import REASONS, ROOT, Block, blocks_of, pages, prose_of
from docs.scenes import SCENES
from docs.stage import pair

BLOCKS = [block for page in pages() for block in blocks_of(page)]


def of(language: str) -> list[Block]:
    return [block for block in BLOCKS if block.language == language]


def where(block: Block) -> str:
    return block.where


def test_every_block_of_commands_is_run_or_says_why_not() -> None:
    unknown = [f"{one.where}: {one.not_run}" for one in BLOCKS if one.not_run and one.not_run not in REASONS]
    assert not unknown
    assert not [one.where for one in BLOCKS if one.not_run and not one.is_commands]
    assert not [one.where for one in BLOCKS if one.is_run and one.page not in SCENES]


def test_a_block_that_only_installs_is_not_called_run() -> None:
    """In a block that does more, the stand-in for pip checks the names."""
    bare = [one.where for one in BLOCKS if one.is_run and all(line.startswith("pip ") for line in _commands(one.text))]
    assert not bare


@pytest.mark.parametrize("block", of("toml"), ids=where)
def test_a_block_of_toml_is_a_configuration_that_is_accepted(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    # Which of the reporters are installed is not the page's matter.
    monkeypatch.setattr(train_config, "find_spec", lambda name: name)
    keys = set(tomllib.loads(block.text))
    if keys <= set(config.Config.model_fields):
        config.parse(_completed(block.text), source=block.where)
    else:
        assert keys <= set(train_config.TrainConfig.model_fields), f"{block.where}: {keys} are of no configuration"
        train_config.parse(_completed_training(block.text), source=block.where)


@pytest.mark.parametrize("block", of("python"), ids=where)
def test_a_block_of_python_compiles_and_imports_what_is_there(block: Block) -> None:
    tree = compile(block.text, block.where, "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "corea":
            assert {name.name for name in node.names} <= _names_in(node.module or ""), ast.unparse(node)


@pytest.mark.parametrize("block", of("json"), ids=where)
def test_a_block_of_json_is_json_whole_or_line_by_line(block: Block) -> None:
    try:
        json.loads(block.text)
    except ValueError:
        assert [json.loads(line) for line in block.text.splitlines()]


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_corea_command_names_verbs_and_options_that_exist(page: Path) -> None:
    """Those in the running text too, and those of blocks that are not run."""
    told = [line for block in blocks_of(page) if block.is_commands for line in _commands(block.text)]
    told += re.findall(r"`(corea [^`]{1,200})`", prose_of(page))
    mistakes = [(line, wrong) for line in told for words in _corea_in(line) if (wrong := _unknown(words))]
    assert not mistakes


def test_an_option_that_does_not_exist_is_noticed() -> None:
    assert _unknown(["eval", "run", "--data", "x", "--outt", "y"]) == "--outt"
    assert _unknown(["eval", "rum"]) == "rum"
    assert _unknown(["ledger", "prune", "--older-than", "90d"]) is None


def _commands(text: str) -> list[str]:
    """Lines as the shell takes them: continued ones joined, comments and empty ones left out."""
    joined = re.sub(r"\\\n\s*", " ", text)
    return [line for line in map(str.strip, joined.splitlines()) if line and not line.startswith("#")]


def _corea_in(line: str) -> Iterator[list[str]]:
    """The words after each ``corea`` of a line, up to where the shell begins another command."""
    try:
        words = shlex.split(line, comments=True)
    except ValueError:
        words = line.split()
    for at, word in enumerate(words):
        # Images, secrets and namespaces may be called corea as well.
        begins = at == 0 or words[at - 1] in {"--", "&&", "gateway"} or "=" in words[at - 1].partition("/")[0]
        if word.endswith("/bin/corea") or (word == "corea" and begins):
            yield words[at + 1 :]


def _unknown(words: list[str]) -> str | None:
    """The first verb or option that does not exist."""
    command: Any = typer.main.get_command(app)
    for word in words:
        if word in {"&&", "||", "|", "&", ";", ">"}:
            return None
        verbs = getattr(command, "commands", {})
        if word in verbs:
            command = verbs[word]
        elif word.startswith("--"):
            if word.partition("=")[0] not in {"--help", *(opt for one in command.params for opt in one.opts)}:
                return word
        elif verbs and re.fullmatch(r"[a-z-]+", word):
            return word
    return None


def _completed(text: str) -> str:
    """A fragment with what it leaves out: the tutorial's pair, or the rest of a tier that it says something of."""
    tiers = tomllib.loads(text).get("tiers", [])
    base = pair().replace("MODELS_PORT", "8000")
    if not tiers:
        return f"{base}\n{text}\n{_policies_named_in(text)}"
    small, large = (f"[[tiers]]{part}" for part in base.split("[[tiers]]")[1:])
    if "kind" not in tiers[0]:
        [said] = tiers
        gone = {*said, "threshold"} if "certificate" in said else set(said)
        missing = [line for line in small.splitlines()[1:] if line.partition(" = ")[0] not in gone]
        text = text.rstrip() + "\n" + "\n".join(missing) + "\n"
    return text if len(tiers) > 1 else f"{text}\n{large}"


def _policies_named_in(text: str) -> str:
    """Those that a profile goes by and that stand elsewhere."""
    said = tomllib.loads(text)
    named = {one.get("policy") for one in said.get("gateway", {}).get("profiles", {}).values()} - {None}
    missing = sorted(named - set(said.get("policies", {})))
    return "".join(f"[policies.{name}]\nlatency = {{ p95_s = 4 }}\n" for name in missing)


def _completed_training(text: str) -> str:
    said = tomllib.loads(text)
    needed = {"base": 'base = "smollm2-135m"', "output": 'output = "runs/first"'}
    head = "\n".join(line for name, line in needed.items() if name not in said)
    tail = "" if "data" in said else '\n[data]\nquestions = ["questions.jsonl"]\n'
    return f"{head}\n{text}{tail}"


def _names_in(module: str) -> set[str]:
    """What a module of ours defines at its top, without importing it: some need packages that are not here."""
    path = ROOT / Path(*module.split("."))
    folder = {one.stem for one in path.glob("*")} if path.is_dir() else set()
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    body = ast.parse(source.read_text(encoding="utf-8")).body
    defined = {node.name for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}
    listed = next((node.value for node in body if isinstance(node, ast.Assign) and _assigns_all(node)), None)
    return folder | defined | (set(ast.literal_eval(listed)) if listed else set())


def _assigns_all(node: ast.Assign) -> bool:
    return any(isinstance(target, ast.Name) and target.id == "__all__" for target in node.targets)
