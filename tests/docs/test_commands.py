"""Every command on every page is run, page by page, in order, as a reader would.

What a page supposes to be there (a configuration, questions, a ledger with traffic) is in :mod:`docs.scenes`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from docs.fences import ROOT, Block, blocks_of, pages
from docs.scenes import SCENES
from docs.stage import Stage, missing_lines

PAGES = [page for page in pages() if any(block.is_run for block in blocks_of(page))]


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_commands_of_a_page_do_what_it_says(page: Path, stage: Stage, measured: Path) -> None:
    name = page.relative_to(ROOT).as_posix()
    SCENES[name](stage, measured)
    ran: Block | None = None
    for block in blocks_of(page):
        if block.title:
            stage.take(block)
        elif block.is_run:
            stage.run(block.text, where=block.where)
            ran = block
            continue
        elif block.language == "text" and ran is not None:
            assert not (missing := missing_lines(block.text, stage.said)), f"{block.where}: {missing}\n{stage.said}"
        ran = None
