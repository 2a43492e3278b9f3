"""``python -m bench [NAME …]``: measures, keeps the figures in ``bench/results``, and writes them into the pages.

Without a name: all that take minutes and find here what they need; the others are named, with their command. What
fails says so, and the others go on. Exit code 1 where a bench failed or missed a limit.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.registry import BENCH, BENCHES, Bench, Given
from bench.running import keep, lasting, run, runs


def main(words: Sequence[str] | None = None) -> int:
    names = [bench.name for bench in BENCHES]
    parser = argparse.ArgumentParser(prog="python -m bench", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="which; without one, all that can be run in minutes")
    parser.add_argument("--list", action="store_true", help="show all, with what they need and how long they take")
    parser.add_argument("--data", type=Path, help="folder of question sets with recorded answers in outcomes/")
    parser.add_argument("--envs", type=Path, help="folder for the environments of LiteLLM and other peers")
    chosen = parser.parse_args(words)
    if unknown := [name for name in chosen.names if name not in names]:
        parser.error(f"no bench is called {unknown[0]!r}; python -m bench --list shows all")
    # The benches run in the repository's folder, wherever this is called.
    given = Given(data=chosen.data and chosen.data.resolve(), envs=chosen.envs and chosen.envs.resolve())
    if chosen.list:
        print("\n".join(_listed()))
        return 0
    wanted = [bench for bench in BENCHES if not chosen.names or bench.name in chosen.names]
    told = [_done(bench, given, named=bool(chosen.names)) for bench in wanted]
    print("\n".join(["", *(line for line, _ in told)]), flush=True)
    written = rendered()
    return int(not written or not all(good for _, good in told))


def rendered() -> bool:
    """Writes the pages, in a process of its own: what the tables need may not be in an environment for training."""
    return not subprocess.run([sys.executable, "-m", "bench.pages"], cwd=BENCH.parent, check=False).returncode


def _done(bench: Bench, given: Given, *, named: bool) -> tuple[str, bool]:
    """Its line in the summary, and whether that is good news; one that nobody named may be left out."""
    if missing := bench.missing(given, named=named):
        return f"{bench.name}: left out; it needs {'; '.join(missing)}. {bench.command}", not named
    print(f"\n== {bench.name}: {bench.about}; about {lasting(bench.takes_s)}", flush=True)
    made = run(bench, given)
    keep(bench.name, made)
    ended = {"met": "done", "missed": "MISSED a limit", "failed": f"FAILED: {made.why}"}[made.outcome]
    return f"{bench.name}: {ended}; {lasting(made.seconds or 0)}", made.outcome == "met"


def _listed() -> list[str]:
    known = runs()
    lines = []
    for bench in BENCHES:
        last = known.get(bench.name)
        took_s = bench.takes_s if last is None or last.seconds is None else last.seconds
        needs = ", ".join(bench.needs) or "nothing"
        lines.append(f"{bench.name:<18}{lasting(took_s):>8}  needs {needs:<18}{bench.about}  [{bench.command}]")
    return lines


if __name__ == "__main__":
    sys.exit(main())
