"""The ``llm`` command and library, with COREA's plugin."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("llm", reason="the llm extra is not installed: see docs/integrations.md")

import llm
from click.testing import CliRunner, Result
from llm.cli import cli

from corea.errors import InputError
from corea.integrations import llm_plugin
from corea.integrations.llm_plugin import AsyncCoreaModel, Cascades, CoreaModel
from faults.endpoint import completion, served_from_a_thread
from integrations.scripted import EASY, HARD, cascade, prompts

# What llm stands on warns of what is its own to mend.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def plugin() -> None:
    """As ``llm`` loads it where the extra is installed."""
    llm.get_plugins()
    if not llm.plugins.pm.is_registered(llm_plugin):
        llm.plugins.pm.register(llm_plugin, name="corea")


@pytest.fixture
def cascades() -> Iterator[Cascades]:
    made = Cascades(cascade())
    yield made
    made.close()


def run(*words: str) -> Result:
    return CliRunner().invoke(cli, list(words))


def test_the_command_answers_by_a_configuration_and_logs_what_the_cascade_knows(tmp_path: Path) -> None:
    with served_from_a_thread(payload=completion("Answer: 42")) as endpoint:
        config = tmp_path / "corea.toml"
        config.write_text(
            f'[[tiers]]\nname = "only"\nkind = "openai"\nbase_url = "{endpoint.base_url}"\nmodel = "served-model"\n'
        )
        asked = run("-m", "corea", "-o", "config", str(config), "-o", "temperature", "0.5", "What is 6 times 7?")
        again = run("-c", "-o", "config", str(config), "Sure?")
    assert (asked.exit_code, asked.output) == (0, "Answer: 42\n")
    assert again.exit_code == 0, again.output
    turns = endpoint.requests[1].body["messages"]
    assert [turn["role"] for turn in turns] == ["system", "user", "assistant", "user"]
    assert endpoint.requests[0].body["temperature"] == 0.5
    [logged] = json.loads(run("logs", "list", "--json", "-n", "1").output)
    assert logged["response_json"]["corea"]["tier"] == "only"
    assert (logged["resolved_model"], logged["input_tokens"]) == ("served-model", 25)


def test_the_command_lists_its_options_and_refuses_others() -> None:
    assert "corea" in run("models", "--options", "-m", "corea").output
    refused = run("-m", "corea", "-o", "threshold", "1", EASY)
    assert refused.exit_code == 1
    assert "threshold" in refused.output


def test_a_configuration_that_is_not_there_is_named(tmp_path: Path) -> None:
    refused = run("-m", "corea", "-o", "config", str(tmp_path / "none.toml"), EASY)
    assert refused.exit_code == 1
    assert "none.toml" in refused.output


def test_the_library_streams_and_keeps_a_conversation(cascades: Cascades) -> None:
    model = CoreaModel(cascades)
    conversation = model.conversation()
    assert conversation.prompt(EASY, system="You add.").text() == "Let me think.\nAnswer: 5"
    second = conversation.prompt(HARD)
    pieces = list(second)
    assert ("".join(pieces), len(pieces) > 1) == ("Answer: 50", True)
    assert second.response_json["corea"]["deferred"] is True
    turns = prompts(cascades.of(None).cascade, 1)[0].messages
    assert [turn.role for turn in turns] == ["system", "user", "assistant", "user"]
    assert turns[0].content == "You add."


def test_it_can_be_awaited(cascades: Cascades) -> None:
    async def ask() -> tuple[str, int | None]:
        response = AsyncCoreaModel(cascades).prompt(HARD, max_tokens=99)
        return await response.text(), (await response.usage()).input

    assert asyncio.run(ask()) == ("Answer: 50", 20)
    assert prompts(cascades.of(None).cascade, 1)[0].max_tokens == 99


def test_the_plugin_opens_no_cascade_until_it_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "corea.toml").write_text("no toml")
    monkeypatch.chdir(tmp_path)
    assert run("models").exit_code == 0
    assert "not TOML" in run("-m", "corea", EASY).output


def test_attachments_are_refused(cascades: Cascades) -> None:
    messages = [
        llm.parts.Message(role="user", parts=[llm.parts.AttachmentPart(attachment=llm.Attachment(content=b""))])
    ]
    with pytest.raises(InputError, match="leave out images"):
        CoreaModel(cascades).prompt(messages=messages).text()
