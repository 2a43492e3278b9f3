"""Each framework is tested where it is installed; elsewhere its tests are skipped, and say so. None asks a network."""

from __future__ import annotations

import os
import tempfile

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
# What these libraries would keep in the user's folders: data sets, answers, prompts.
_FOLDER = tempfile.mkdtemp(prefix="corea-integrations-")
os.environ["HF_HOME"] = _FOLDER
os.environ["DSPY_CACHEDIR"] = _FOLDER
os.environ["LLM_USER_PATH"] = _FOLDER
os.environ["NLTK_DATA"] = _FOLDER
