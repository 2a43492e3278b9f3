from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from corea.errors import ChecksumMismatch, ModelFileError, UnknownModel
from corea.models import verified
from corea.models.verified import path_of, verify
from models.mirror import content, model_of

BODY = content(50_000)
MODEL = model_of(BODY)
KNOWN = {MODEL.name: MODEL}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / MODEL.file
    path.write_bytes(BODY)
    return path


def _count_hashing(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    hashed: list[Path] = []
    real = verified.sha256_of

    def counting(path: Path, *rest: None) -> str:
        hashed.append(path)
        return real(path, *rest)

    monkeypatch.setattr(verified, "sha256_of", counting)
    return hashed


def test_a_model_that_is_not_here_has_no_path(tmp_path: Path) -> None:
    assert path_of("tiny", tmp_path, catalogue=KNOWN) is None
    assert path_of("tiny", tmp_path / "no" / "such" / "folder", catalogue=KNOWN) is None


def test_the_folder_is_in_corea_home_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COREA_HOME", str(tmp_path))
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / MODEL.file).write_bytes(BODY)
    assert path_of("tiny", catalogue=KNOWN) == tmp_path / "models" / MODEL.file


def test_an_unknown_name_is_an_error_not_none(tmp_path: Path) -> None:
    with pytest.raises(UnknownModel, match="did you mean tiny"):
        path_of("tinny", tmp_path, catalogue=KNOWN)


def test_the_second_look_does_not_hash(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed = _count_hashing(monkeypatch)
    assert path_of("tiny", file.parent, catalogue=KNOWN) == file
    assert path_of("tiny", file.parent, catalogue=KNOWN) == file
    assert hashed == [file]


def test_a_touched_file_is_hashed_again(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed = _count_hashing(monkeypatch)
    path_of("tiny", file.parent, catalogue=KNOWN)
    os.utime(file, ns=(1, 1))
    assert path_of("tiny", file.parent, catalogue=KNOWN) == file
    assert len(hashed) == 2


@pytest.mark.parametrize("sidecar", [b"", b"not json", b"[1]", b'{"size": 1}', b"\xff"])
def test_a_broken_sidecar_vouches_for_nothing(file: Path, sidecar: bytes) -> None:
    file.with_name(file.name + ".verified").write_bytes(sidecar)
    file.write_bytes(b"GGUX" + BODY[4:])
    with pytest.raises(ChecksumMismatch):
        path_of("tiny", file.parent, catalogue=KNOWN)


def test_a_sidecar_for_another_version_of_the_model_vouches_for_nothing(file: Path) -> None:
    path_of("tiny", file.parent, catalogue=KNOWN)
    sidecar = file.with_name(file.name + ".verified")
    sidecar.write_text(json.dumps({**json.loads(sidecar.read_text()), "sha256": "0" * 64}))
    assert path_of("tiny", file.parent, catalogue=KNOWN) == file
    assert json.loads(sidecar.read_text())["sha256"] == MODEL.sha256


@pytest.mark.parametrize("wrong", [BODY[:-1], BODY + b"x", b"GGUX" + BODY[4:], b""])
def test_a_wrong_file_is_deleted_and_the_error_says_what_to_run(file: Path, wrong: bytes) -> None:
    path_of("tiny", file.parent, catalogue=KNOWN)
    file.write_bytes(wrong)
    with pytest.raises(ChecksumMismatch, match="corea models pull tiny") as caught:
        path_of("tiny", file.parent, catalogue=KNOWN)
    assert "\n" not in str(caught.value)
    assert list(file.parent.iterdir()) == []
    assert path_of("tiny", file.parent, catalogue=KNOWN) is None


def test_verify_hashes_even_what_the_sidecar_vouches_for(file: Path) -> None:
    path_of("tiny", file.parent, catalogue=KNOWN)
    seen = file.stat()
    file.write_bytes(b"GGUX" + BODY[4:])
    os.utime(file, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    assert path_of("tiny", file.parent, catalogue=KNOWN) == file
    with pytest.raises(ChecksumMismatch):
        verify("tiny", file.parent, catalogue=KNOWN)


def test_verify_returns_a_good_file(file: Path) -> None:
    assert verify("tiny", file.parent, catalogue=KNOWN) == file


def test_verify_of_a_model_that_is_not_here_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="corea models pull tiny"):
        verify("tiny", tmp_path, catalogue=KNOWN)


def test_a_folder_in_the_files_place_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / MODEL.file).mkdir()
    with pytest.raises(ModelFileError, match="is not a file"):
        path_of("tiny", tmp_path, catalogue=KNOWN)


def test_the_users_own_file_is_never_hashed_nor_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed = _count_hashing(monkeypatch)
    mine = tmp_path / "mine.gguf"
    mine.write_bytes(b"GGUF of my own")
    assert path_of(str(mine), tmp_path) == mine
    assert verify(str(mine), tmp_path) == mine
    assert hashed == []
    assert list(tmp_path.iterdir()) == [mine]
