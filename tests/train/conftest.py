"""Training tests run where the train extra is; elsewhere they are skipped, and say so. One thread: they are tiny."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Nothing here needs the Hub, and without a network its client would wait for it.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
