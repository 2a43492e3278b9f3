"""``pip install`` as far as it can be had without installing: what is named must be there, extras too."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

#: Whoever writes a page may name these without our knowing more of them.
OTHERS = frozenset({"torch"})
_OURS = re.compile(r"^(?:corea|\.)(?:\[(?P<extras>[a-z,-]+)\])?$")


def main(root: str, *args: str) -> int:
    known = tomllib.loads((Path(root) / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = [arg for arg in args[1:] if not arg.startswith("-")]
    for name in named:
        ours = _OURS.match(name)
        unknown = [extra for extra in (ours["extras"] or "").split(",") if extra and extra not in known] if ours else []
        if args[0] != "install" or not (ours or name in OTHERS) or unknown:
            sys.stderr.write(f"pip stand-in: cannot tell whether {name} {' '.join(unknown)} is there\n")
            return 1
    return 0 if named else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
