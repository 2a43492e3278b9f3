"""The embedded engine with a real model: SmolLM2-135M through llama.cpp."""

from __future__ import annotations

import asyncio
import gc
import shutil
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from corea.errors import ContextOverflow, EngineMissing, ModelFileError, UpstreamTimeout
from corea.models.embedded import EmbeddedModel, EngineSettings, loaded_engines
from corea.types import Message, Prompt

pytestmark = pytest.mark.real_model


def prompt(text: str = "What is 2+3?", *, max_tokens: int = 16, top_logprobs: int = 0) -> Prompt:
    return Prompt(messages=(Message(role="user", content=text),), max_tokens=max_tokens, top_logprobs=top_logprobs)


def settings(path: Path, *, context_tokens: int = 512, slots: int = 2) -> EngineSettings:
    return EngineSettings(path=path, context_tokens=context_tokens, slots=slots)


def test_a_real_model_answers_with_usage_and_log_probabilities(smollm: Path) -> None:
    async def run() -> None:
        model = EmbeddedModel("smollm2-135m", settings(smollm))
        reply = await model.complete(prompt(top_logprobs=5))
        assert "5" in reply.text
        assert reply.usage is not None
        assert reply.usage.completion_tokens > 0
        assert reply.tokens is not None
        assert "".join(token.text for token in reply.tokens).strip().startswith(reply.text.strip()[:4])
        assert all(len(token.top) == 5 and token.logprob <= 0 for token in reply.tokens)
        assert (await model.complete(prompt())).tokens is None
        await model.aclose()

    asyncio.run(run())


def test_tiers_with_the_same_file_share_one_engine_and_the_last_one_unloads_it(smollm: Path) -> None:
    async def run() -> None:
        one, two = (EmbeddedModel("m", settings(smollm)) for _ in range(2))
        await asyncio.gather(*(model.complete(prompt(max_tokens=2)) for model in (one, two, one)))
        assert loaded_engines() == [smollm]
        await one.aclose()
        assert loaded_engines() == [smollm]
        assert (await two.complete(prompt(max_tokens=2))).text
        await two.aclose()
        await two.aclose()
        assert loaded_engines() == []

    threads = threading.active_count()
    asyncio.run(run())
    gc.collect()
    assert threading.active_count() <= threads + 1


def test_more_questions_than_slots_are_all_answered(smollm: Path) -> None:
    async def run() -> list[str]:
        model = EmbeddedModel("m", settings(smollm))
        replies = await asyncio.gather(*(model.complete(prompt(f"Say {i}", max_tokens=3)) for i in range(7)))
        await model.aclose()
        return [reply.text for reply in replies]

    assert len(asyncio.run(run())) == 7


def test_a_question_that_does_not_fit_overflows(smollm: Path) -> None:
    async def run() -> None:
        model = EmbeddedModel("m", settings(smollm))
        with pytest.raises(ContextOverflow):
            await model.complete(prompt("word " * 2000))
        await model.aclose()

    asyncio.run(run())


def test_a_time_limit_stops_the_decoding_behind_it(smollm: Path) -> None:
    async def run() -> None:
        model = EmbeddedModel("m", settings(smollm, slots=1, context_tokens=4096))
        await model.load()
        try:
            # Its story runs to hundreds of tokens; two hundred in a tenth of a second is beyond any machine.
            with pytest.raises(UpstreamTimeout):
                await model.complete(prompt("Write a long story about a river.", max_tokens=4000), timeout_s=0.1)
            # With its one slot still busy, this would wait for the rest of the story.
            assert await model.complete(prompt(max_tokens=2), timeout_s=10)
        finally:
            await model.aclose()

    asyncio.run(run())


def test_a_closed_model_says_so(smollm: Path) -> None:
    async def run() -> None:
        model = EmbeddedModel("m", settings(smollm))
        await model.aclose()
        with pytest.raises(ModelFileError, match="was closed"):
            await model.complete(prompt())

    asyncio.run(run())


def test_a_file_cut_short_is_refused_when_it_is_loaded(smollm: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.gguf"
    with smollm.open("rb") as file:
        cut.write_bytes(file.read(3_000_000))
    with pytest.raises(ModelFileError, match="llama.cpp cannot load"):
        asyncio.run(EmbeddedModel("cut", settings(cut)).load())


def test_a_library_that_cannot_be_loaded_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF")
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    with pytest.raises(EngineMissing, match="apt-get install libgomp1"):
        asyncio.run(EmbeddedModel("m", settings(path)).load())


@pytest.mark.parametrize("content", [b"", b"GG", b"PK\x03\x04 a zip"])
def test_a_file_that_is_not_gguf_is_refused_at_once(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match="not a GGUF file"):
        EmbeddedModel("m", settings(path))


def test_a_broken_adapter_is_refused(smollm: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter.gguf"
    shutil.copyfile(smollm, adapter)
    with_adapter = EngineSettings(path=smollm, adapters=((adapter, 1.0),), context_tokens=512, slots=1)
    with pytest.raises(ModelFileError):
        asyncio.run(EmbeddedModel("m", with_adapter).load())


def test_the_key_of_the_engine_is_needed_and_not_shown(smollm: Path) -> None:
    import aiohttp

    from corea.models import embedded

    async def run() -> int:
        model = EmbeddedModel("m", settings(smollm))
        await model.load()
        (engine,) = embedded._engines.values()
        assert engine.key not in repr(engine)
        async with aiohttp.ClientSession() as session:
            answer = await session.post(f"{engine.address}/v1/chat/completions", json={"messages": []})
        await model.aclose()
        return answer.status

    assert asyncio.run(run()) == 401


def test_a_program_that_forgets_to_close_still_ends_quietly(smollm: Path) -> None:
    script = textwrap.dedent(
        """
        import asyncio, sys
        from pathlib import Path
        from corea.models.embedded import EmbeddedModel, EngineSettings
        model = EmbeddedModel("m", EngineSettings(path=Path(sys.argv[1]), context_tokens=512, slots=1))
        asyncio.run(model.load())
        """
    )
    done = subprocess.run([sys.executable, "-c", script, str(smollm)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
