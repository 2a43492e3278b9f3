"""The ``corea`` command: one file a verb, no logic. Answers go to stdout; progress, remarks and errors to stderr."""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point. Exit codes: 0 fine, 1 an error or failed rows, 2 wrong usage, 130 interrupted."""
    from corea.cli.app import app
    from corea.cli.console import fail
    from corea.errors import CoreaError

    try:
        app()
    except CoreaError as exc:
        fail(str(exc))
        sys.exit(1)
    except KeyboardInterrupt:
        fail("interrupted")
        sys.exit(130)
    except BrokenPipeError:
        # `corea trace list | head`: the reader has seen enough. Without this, Python complains again at exit.
        sys.stdout = None
        sys.exit(0)
