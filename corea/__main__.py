"""``python -m corea``."""

from corea.cli import main

main()
