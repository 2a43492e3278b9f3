"""Questions that ship with the package, with their licences."""

from __future__ import annotations

from pathlib import Path

#: The first 12 questions of the GSM8K test set (MIT), not chosen for how they turn out.
GSM8K = Path(__file__).parent / "gsm8k.jsonl"

#: 40 small programming tasks made for COREA (Apache-2.0): with tests, a solution, and a wrong one that looks right.
PROGRAMS = Path(__file__).parent / "programs.jsonl"
