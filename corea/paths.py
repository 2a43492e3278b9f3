"""Where COREA keeps its files. One folder, ``COREA_HOME``, by default in the user's cache folder."""

from __future__ import annotations

import os
from pathlib import Path


def home() -> Path:
    """The folder for models and ledger: ``$COREA_HOME``, else ``corea`` in the user's cache folder. Not created."""
    configured = os.environ.get("COREA_HOME")
    if configured:
        return Path(configured).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("corea", appauthor=False))


def models_dir() -> Path:
    return home() / "models"


def ledger_url() -> str:
    """The default ledger: one SQLite file."""
    return f"sqlite:///{home() / 'ledger.db'}"
