"""The stages by name, and what they share: a folder each, claimed for one configuration; and what goes wrong, in words.

Knows no more of a stage than its name, and imports neither torch nor numpy: the command line needs the names.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, get_args

from corea.errors import DiskFull, InputError

Stage = Literal["rollouts", "warmup", "rl", "calibrate", "export"]
#: In the order in which they run.
STAGES: tuple[Stage, ...] = get_args(Stage)

#: How torch and safetensors say that the disk is full; neither raises an OSError.
_FULL = ("No space left", "PytorchStreamWriter failed", "StorageFull")
_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


def in_order(names: Sequence[str]) -> list[Stage]:
    """The stages of these names as they run; all of them for none. Raises :class:`InputError` for an unknown one."""
    if unknown := [name for name in names if name not in STAGES]:
        raise InputError(f'no stage is called "{unknown[0]}"; there are: {", ".join(STAGES)}')
    return [stage for stage in STAGES if stage in names or not names]


def claim(folder: Path, fingerprint: str) -> None:
    """Take the folder for this configuration. Raises :class:`InputError` where another one has been at work."""
    folder.mkdir(parents=True, exist_ok=True)
    mark, written = folder / "stage.json", json.dumps({"fingerprint": fingerprint}) + "\n"
    if not mark.exists():
        # Every process of a run claims it, perhaps at once: none may read half a file.
        partial = mark.with_name(f"{mark.name}.{os.getpid()}")
        partial.write_text(written, encoding="utf-8")
        partial.replace(mark)
    if mark.read_text(encoding="utf-8", errors="replace") != written:
        raise InputError(
            f"{folder} holds the work of another configuration or other questions; choose another output, or delete it"
        )


@contextmanager
def told(folder: Path, *, lower: str) -> Iterator[None]:
    """Memory and disk that run out, as errors that name the mend. ``lower`` names the settings to lower."""
    try:
        yield
    except OSError as exc:
        if exc.errno != errno.ENOSPC:
            raise
        raise _full(folder) from exc
    except MemoryError as exc:
        raise _no_memory(lower) from exc
    except Exception as exc:
        # torch.OutOfMemoryError is a RuntimeError, safetensors' error is its own: they are known by their words.
        if any(words in str(exc) for words in _FULL):
            raise _full(folder) from exc
        if any(words in str(exc) for words in _NO_MEMORY):
            raise _no_memory(lower) from exc
        raise


def _full(folder: Path) -> DiskFull:
    return DiskFull(f"the disk of {folder} is full; make room, and run the same command again: it goes on from there")


def _no_memory(lower: str) -> InputError:
    return InputError(f"memory ran out; lower {lower}")
