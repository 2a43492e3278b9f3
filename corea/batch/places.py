"""Where files are: a path on this machine, or a URL that fsspec understands. Knows no formats and no rows."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

from corea.errors import CoreaError, ExtraMissing, InputError
from corea.paths import home

#: A URL is a string, everything else a path.
Place = Path | str

_URL = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*(::|://)")


def place_of(text: str | Path) -> Place:
    """What the user named: ``s3://bucket/in.jsonl`` is a URL, ``file:///in.jsonl`` and ``in.jsonl`` are paths."""
    if isinstance(text, Path) or not _URL.match(text):
        return Path(text)
    parts = urlsplit(text)
    return Path(unquote(parts.path)) if parts.scheme == "file" and parts.netloc in ("", "localhost") else text


def under(folder: Place, name: str) -> Place:
    return folder / name if isinstance(folder, Path) else f"{folder.rstrip('/')}/{name}"


def suffix(place: Place) -> str:
    return Path(str(place).rstrip("/")).suffix.lower()


def opened(place: Place) -> BinaryIO:
    """The bytes, from the first on, seekable. Raises ``OSError``, and :class:`InputError` for a URL."""
    if isinstance(place, Path):
        return place.open("rb")
    with _told(place, "read"):
        file: BinaryIO = _file_system(place).open(place, "rb")
        return file


def exists(place: Place) -> bool:
    if isinstance(place, Path):
        return place.exists()
    with _told(place, "read"):
        return bool(_file_system(place).exists(place))


def names(folder: Place) -> list[str]:
    """What lies in a folder, by name; nothing where there is none."""
    if isinstance(folder, Path):
        return sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
    with _told(folder, "read"):
        files = _file_system(folder)
        # A listing that was kept would not show what another machine wrote since.
        files.invalidate_cache()
        found = files.ls(folder, detail=False) if files.isdir(folder) else []
        return sorted(str(name).rstrip("/").rpartition("/")[2] for name in found)


def read_text(place: Place) -> str | None:
    """None where there is no such file."""
    if not exists(place):
        return None
    with opened(place) as file:
        return file.read().decode("utf-8", "replace")


def write_text(place: Place, text: str) -> None:
    """All or nothing: a reader never sees half of it. Raises ``OSError``, and :class:`InputError` for a URL."""
    if isinstance(place, Path):
        place.parent.mkdir(parents=True, exist_ok=True)
        whole = place.with_name(f".{place.name}.new")
        whole.write_text(text, encoding="utf-8")
        whole.replace(place)
        return
    with _told(place, "write"):
        files = _file_system(place)
        files.makedirs(_parent(place), exist_ok=True)
        files.pipe_file(place, text.encode())


def put(local: Path, place: Place) -> None:
    """Moves a finished file to its place, all or nothing: renamed on a disk, stored as one object behind a URL."""
    if isinstance(place, Path):
        place.parent.mkdir(parents=True, exist_ok=True)
        local.replace(place)
        return
    with _told(place, "write"):
        files = _file_system(place)
        files.makedirs(_parent(place), exist_ok=True)
        files.put_file(str(local), place)
    local.unlink()


def fetch(place: Place, local: Path) -> None:
    """A copy of it on this machine."""
    with opened(place) as source, local.open("wb") as target:
        shutil.copyfileobj(source, target, 1 << 20)


def workplace(place: Place) -> Path:
    """A folder on this machine for what is not finished yet and is to end up behind a URL. Not created."""
    return home() / "batches" / blake2b(str(place).encode(), digest_size=12).hexdigest()


def is_same(one: Place, other: Place) -> bool:
    if isinstance(one, Path) and isinstance(other, Path):
        return one.resolve() == other.resolve()
    return str(one) == str(other)


def _parent(url: str) -> str:
    return url.rstrip("/").rpartition("/")[0]


def _file_system(url: str) -> Any:
    try:
        import fsspec
    except ModuleNotFoundError as exc:
        raise ExtraMissing(package="fsspec", extra="remote") from exc
    return fsspec.core.url_to_fs(url)[0]


@contextmanager
def _told(url: str, verb: str) -> Iterator[None]:
    """Whatever a storage service's own library raises, as one line."""
    try:
        yield
    except CoreaError:
        raise
    except Exception as exc:
        why = " ".join(str(exc).split()) or type(exc).__name__
        raise InputError(f"cannot {verb} {url}: {why}; check the address and your access to it") from exc
