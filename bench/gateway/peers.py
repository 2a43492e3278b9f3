"""The gateways of others that are compared: their versions, how they are installed, and how they are started.

Each has an environment of its own under one folder. Knows nothing of the load.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from bench.gateway.servers import KEY, Server

LITELLM, PORTKEY = "1.109.1", "1.15.2"
_PORTKEY = Path("node_modules/@portkey-ai/gateway")


def installed(folder: Path) -> dict[str, str]:
    """Install what is missing under ``folder``, some minutes the first time; the versions that are there."""
    folder.mkdir(parents=True, exist_ok=True)
    versions = {"litellm": _litellm(folder / "litellm"), "portkey": _portkey(folder / "portkey")}
    versions["node"] = _told(["node", "--version"]).removeprefix("v")
    return versions


def litellm(folder: Path, upstream_port: int, scratch: Path) -> Server:
    """One worker, a master key, no database, logs of errors only: as its guide for production has it."""
    config = scratch / "litellm.yaml"
    config.write_text(_CONFIG.format(port=upstream_port, key=KEY))
    return Server(
        name="litellm",
        command=(
            *(str(folder / "litellm/bin/litellm"), "--config", str(config), "--host", "127.0.0.1", "--port", "PORT"),
            *("--num_workers", "1", "--telemetry", "False"),
        ),
        env={"LITELLM_MODE": "PRODUCTION", "LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True"},
    )


def portkey(folder: Path, upstream_port: int) -> Server:
    """It holds no keys: the client's goes on to the upstream, which the client names."""
    return Server(
        name="portkey",
        command=("node", str(folder / "portkey" / _PORTKEY / "build/start-server.js"), "--port=PORT", "--headless"),
        env={"NODE_ENV": "production"},
        headers={
            "Authorization": f"Bearer {KEY}",
            "x-portkey-provider": "openai",
            "x-portkey-custom-host": f"http://127.0.0.1:{upstream_port}/v1",
        },
    )


_CONFIG = """
model_list:
  - model_name: large
    litellm_params:
      model: openai/mock
      api_base: http://127.0.0.1:{port}/v1
      api_key: sk-upstream
general_settings:
  master_key: {key}
litellm_settings:
  num_retries: 0
  set_verbose: false
"""

#: What its extra "proxy" asks for, but for the versions of its own two packages: they hold the database's migrations
#: and what needs a licence, are not used here, and not every index has all of them.
_REQUIREMENTS = """
import re
from importlib.metadata import requires
for line in requires("litellm"):
    need, _, marker = line.partition(";")
    if "extra == 'proxy'" in marker:
        rest = re.sub(r"( *and *)?extra == 'proxy'", "", marker).strip()
        print(re.sub(r"^(litellm-[a-z-]+)==.*", r"\\1", need.strip()) + (f"; {rest}" if rest else ""))
"""


def _litellm(folder: Path) -> str:
    python = folder / "bin" / "python"
    if not (folder / "installed").exists():
        _run([sys.executable, "-m", "venv", str(folder)])
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _run([*pip, f"litellm=={LITELLM}"])
        requirements = folder / "requirements.txt"
        requirements.write_text(_told([str(python), "-c", _REQUIREMENTS]))
        _run([*pip, f"litellm=={LITELLM}", "-r", str(requirements)])
        (folder / "installed").touch()
    found = _told([str(python), "-c", "from importlib.metadata import version; print(version('litellm'))"])
    return _checked("litellm", found, LITELLM, folder)


#: Its streams fail with any later server than this: github.com/Portkey-AI/gateway/issues/1389.
_NODE = {"dependencies": {"@portkey-ai/gateway": PORTKEY}, "overrides": {"@hono/node-server": "1.14.1"}}


def _portkey(folder: Path) -> str:
    package = folder / _PORTKEY / "package.json"
    if not package.exists():
        folder.mkdir(exist_ok=True)
        (folder / "package.json").write_text(json.dumps(_NODE))
        _run(["npm", "install", "--prefix", str(folder), "--no-audit", "--no-fund", "--ignore-scripts"])
    return _checked("portkey", str(json.loads(package.read_text())["version"]), PORTKEY, folder)


def _checked(name: str, found: str, wanted: str, folder: Path) -> str:
    if found != wanted:
        raise RuntimeError(f"{folder} has {name} {found}, not {wanted}; delete it, and it is installed anew")
    return found


def _run(command: list[str]) -> None:
    print("$", *command, file=sys.stderr, flush=True)
    subprocess.run(command, check=True)


def _told(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
