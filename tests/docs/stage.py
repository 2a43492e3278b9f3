"""Where a page's commands are run: a folder with what the page supposes, pretend models, and bash.

Commands are those of the page, to the letter, but for ports (the page's are taken, or would be shared with another
test). ``corea``, ``python`` and ``curl`` are the real ones. ``pip`` is a stand-in that installs nothing and checks that
what is to be installed exists. ``corea serve`` runs in the background until the page is over.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from docs.fences import ROOT, Block

TUTORIAL = ROOT / "examples" / "tutorial"
#: Seconds for one block, on a machine that has other things to do.
LIMIT_S = 600
_SERVE = Path(__file__).parent / "serve_in_background.py"
_PIP = Path(__file__).parent / "pip_stand_in.py"

#: The tutorial's pair, at MODELS_PORT.
PAIR = """\
[[tiers]]
name = "small"
kind = "openai"
base_url = "http://127.0.0.1:MODELS_PORT/v1"
model = "play-small"
{judged}
confidence = {{ estimator = "expected" }}
prices = {{ input = 0.1, output = 0.4 }}

[[tiers]]
name = "large"
kind = "openai"
base_url = "http://127.0.0.1:MODELS_PORT/v1"
model = "play-large"
prices = {{ input = 2.5, output = 10 }}
"""


def pair(*, judged: str = "threshold = 0.9", more: str = "") -> str:
    return PAIR.format(judged=judged) + more


@dataclass(kw_only=True)
class Stage:
    """``folder`` is where the page begins; ``home`` its COREA_HOME. ``texts`` are replaced in whatever is run."""

    folder: Path
    home: Path
    state: Path
    texts: dict[str, str] = field(default_factory=dict)
    said: str = ""

    def write(self, name: str, text: str) -> None:
        """A file as the page's reader would have it."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self._placed(text), encoding="utf-8")

    def take(self, block: Block) -> None:
        """A block with a title is a file in the folder that the page has come to."""
        assert block.title is not None
        (self._here() / block.title).write_text(self._placed(block.text), encoding="utf-8")

    def run(self, text: str, *, where: str = "setting up") -> str:
        """Run commands, stopping at the first that fails. What they print is returned, and fails the test with it."""
        (self.state / "script").write_text(self._placed(text), encoding="utf-8")
        script = (
            f'set -eo pipefail; [ -f "{self.state}/env" ] && . "{self.state}/env"; cd "$(cat "{self.state}/cwd")"; '
            f'. "{self.state}/script"; export -p > "{self.state}/env"; pwd > "{self.state}/cwd"'
        )
        log = self.state / "said"
        # A file, not a pipe: what goes on in the background must not keep us waiting.
        with log.open("w") as said:
            bash = subprocess.Popen(
                ["bash", "-c", script],
                stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT, env=self._env(),
                start_new_session=True,
            )  # fmt: skip
            with (self.state / "sessions").open("a") as sessions:
                sessions.write(f"{bash.pid}\n")
            code = bash.wait(LIMIT_S)
        self.said = log.read_text(encoding="utf-8", errors="replace")
        assert code == 0, f"{where}: exit code {code}\n{text}\n{self.said}"
        return self.said

    def end(self) -> None:
        """Stop what was left running: everything began in a session of its own."""
        for pid in (self.state / "sessions").read_text().split():
            with suppress(ProcessLookupError):
                os.killpg(int(pid), signal.SIGTERM)

    def _here(self) -> Path:
        return Path((self.state / "cwd").read_text().strip())

    def _placed(self, text: str) -> str:
        for old, new in self.texts.items():
            text = text.replace(old, new)
        return text

    def _env(self) -> Mapping[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("COREA_", "OTEL_"))}
        path = f"{self.state}/bin:{kept['PATH']}"
        return {**kept, "PATH": path, "COREA_HOME": str(self.home), "NO_COLOR": "1", "COLUMNS": "160"}


@contextmanager
def staged(folder: Path, *, models_port: int) -> Iterator[Stage]:
    """A stage under ``folder``, with the tutorial's questions; ``MODELS_PORT`` stands for the pretend models' port."""
    stage = Stage(folder=folder / "here", home=folder / "home", state=folder / "state")
    for made in (stage.folder, stage.state, stage.state / "bin"):
        made.mkdir(parents=True)
    (stage.state / "cwd").write_text(str(stage.folder))
    (stage.state / "sessions").touch()
    gateway = free_port()
    stage.texts = {"MODELS_PORT": str(models_port), "127.0.0.1:8080": f"127.0.0.1:{gateway}"}
    python = sys.executable
    serve = f'[ "$1" = serve ] && exec "{python}" "{_SERVE}" "{stage.state}/server" {gateway} "$@"'
    _program(stage.state / "bin" / "corea", f'{serve}\nexec "{python}" -m corea "$@"')
    _program(stage.state / "bin" / "pip", f'exec "{python}" "{_PIP}" "{ROOT}" "$@"')
    for name in ("python", "python3"):
        _program(stage.state / "bin" / name, f'exec "{python}" "$@"')
    try:
        yield stage
    finally:
        stage.end()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def missing_lines(expected: str, said: str) -> list[str]:
    """Lines that a page shows and that were not printed, in that order; runs of blanks count as one."""
    rest = _plain(said)
    missing = []
    for line in filter(None, map(_plain, expected.splitlines())):
        _, found, after = rest.partition(line)
        if not found:
            missing.append(line)
            continue
        rest = after
    return missing


def questions(count: int) -> str:
    return "".join((TUTORIAL / "questions.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)[:count])


def bring(stage: Stage, folder: Path, *names: str) -> None:
    for name in names:
        shutil.copy(folder / name, stage.folder / name)


def copied_tutorial(stage: Stage) -> None:
    shutil.copytree(TUTORIAL, stage.folder / "examples" / "tutorial")


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


def _program(path: Path, body: str) -> None:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
