"""The files in deploy/, as far as a machine without Docker can try them: they load, agree, and serve."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from configparser import RawConfigParser
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml  # type: ignore[import-untyped]
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from corea.build import tiers_of
from corea.config import Config
from corea.gateway_config import check_exposure
from faults.endpoint import served_from_a_thread
from gateway.running import serving
from ledger.stores import fresh

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
IMAGE = ("serve", "postgres", "otel")
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
TOML = (DEPLOY / "corea.toml").read_text()


def instructions(name: str) -> list[str]:
    """What follows each of a Dockerfile's instructions of that name."""
    whole = re.sub(r"\\\n\s*", "", (DEPLOY / "Dockerfile").read_text())
    return [line.partition(" ")[2].strip() for line in whole.splitlines() if line.strip().startswith(f"{name} ")]


HEALTH: list[str] = json.loads(instructions("HEALTHCHECK")[0].partition(" CMD ")[2])
(ENTRYPOINT,) = map(json.loads, instructions("ENTRYPOINT"))
(COMMAND,) = map(json.loads, instructions("CMD"))


def unit() -> Mapping[str, str]:
    parser = RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(DEPLOY / "corea.service")
    return parser["Service"]


def seconds(text: str) -> float:
    found = re.fullmatch(r"(\d+)(s|m|)", text)
    assert found is not None, text
    return int(found[1]) * (60 if found[2] == "m" else 1)


def pins(file: Path) -> dict[str, tuple[str, frozenset[str]]]:
    """Name → version and hashes."""
    found = re.findall(
        r"^([A-Za-z0-9_.-]+)==(\S+)[^\n]*\\\n((?:    --hash=\S+[ \\]*\n)+)", file.read_text(), re.MULTILINE
    )
    return {name: (version, frozenset(re.findall(r"sha256:\w+", hashes))) for name, version, hashes in found}


def needed(*roots: str) -> set[str]:
    """Every package that these come to on this machine."""
    seen: set[tuple[str, frozenset[str]]] = set()
    wanted = [(Requirement(root), frozenset[str]()) for root in roots]
    while wanted:
        requirement, of_extras = wanted.pop()
        environments = [{"extra": extra} for extra in ("", *of_extras)]
        if requirement.marker and not any(requirement.marker.evaluate(environment) for environment in environments):
            continue
        name, extras = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            wanted += [(Requirement(line), extras) for line in requires(name) or ()]
        except PackageNotFoundError:
            pytest.fail(f"{name} is not installed here")
    return {name for name, _ in seen}


def test_the_image_has_every_package_of_its_extras_but_llama_cpp() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    roots = [*project["dependencies"], *(line for extra in IMAGE for line in extras[extra])]
    missing = needed(*roots) - pins(DEPLOY / "requirements.txt").keys()
    assert missing == {"xllamacpp"}, "run: make lock"
    assert needed("hatchling") <= pins(DEPLOY / "requirements-build.txt").keys()


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-build.txt"])
def test_the_image_has_the_versions_that_are_tested(name: str) -> None:
    tested = pins(ROOT / "requirements.lock")
    for package, (version, hashes) in pins(DEPLOY / name).items():
        assert tested[package][0] == version, f"{package}: run: make lock"
        assert hashes <= tested[package][1]
        assert hashes


def test_what_the_dockerfile_copies_is_there_and_nothing_else_reaches_the_builder() -> None:
    copied = [word for line in instructions("COPY") if not line.startswith("--from") for word in line.split()[:-1]]
    rules = [
        line for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line[:1] not in ("", "#")
    ]
    assert rules[0] == "*"
    assert {rule[1:] for rule in rules if rule.startswith("!")} == set(copied)
    assert all((ROOT / path).exists() for path in copied)


def test_the_image_runs_as_nobody_in_particular_and_its_command_is_one_of_ours(corea_help: str) -> None:
    user, _, group = instructions("USER")[-1].partition(":")
    assert int(user) > 0
    assert int(group) > 0
    assert [*ENTRYPOINT, COMMAND[0]] == ["corea", "serve"]
    for option in (word for word in COMMAND if word.startswith("--")):
        assert option in corea_help
    config = Config.load(DEPLOY / "corea.toml")
    check_exposure(COMMAND[COMMAND.index("--host") + 1], has_keys=config.gateway.virtual_keys)


@pytest.fixture(scope="module")
def corea_help() -> str:
    command = [sys.executable, "-m", "corea", "serve", "--help"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_the_health_check_needs_no_key_and_tells_a_gateway_from_nothing() -> None:
    with serving() as running:
        assert health(running.port) == 0
        port = running.port
    assert health(port) != 0


def health(port: int) -> int:
    words = [sys.executable, *(word.replace("8080", str(port)) for word in HEALTH[1:])]
    return subprocess.run(words, capture_output=True, check=False).returncode


def test_the_port_is_the_same_everywhere() -> None:
    port = COMMAND[COMMAND.index("--port") + 1]
    assert port in instructions("EXPOSE")
    assert f", {port}," in HEALTH[-1]
    assert SERVICES["gateway"]["ports"] == [f"127.0.0.1:{port}:{port}"]


def test_the_composed_gateway_asks_the_servers_that_are_composed_by_the_names_they_serve() -> None:
    config = Config.load(DEPLOY / "corea.toml")
    for tier, built in zip(config.tiers, tiers_of(config), strict=True):
        service = SERVICES[tier.name]
        assert built.price is not None
        assert tier.base_url == f"http://{tier.name}:8000/v1"  # type: ignore[union-attr]
        assert f"--served-model-name={tier.model}" in service["command"]
        assert set(service["networks"]) <= set(SERVICES["gateway"]["networks"])
    assert "--enable-lora" in SERVICES["small"]["command"]
    environment = SERVICES["postgres"]["environment"]
    assert config.ledger.url == f"postgresql://{environment['POSTGRES_USER']}@postgres/{environment['POSTGRES_DB']}"


def test_who_is_waited_for_can_say_that_it_is_well() -> None:
    for name, condition in SERVICES["gateway"]["depends_on"].items():
        assert condition == {"condition": "service_healthy"}
        assert "test" in SERVICES[name]["healthcheck"]


def test_everything_that_is_named_is_declared() -> None:
    for service in SERVICES.values():
        assert set(service["networks"]) <= COMPOSE["networks"].keys()
        for volume in service["volumes"]:
            source = volume.partition(":")[0]
            ignored = (DEPLOY / ".gitignore").read_text().splitlines()
            assert source in COMPOSE["volumes"] or (DEPLOY / source).exists() or f"{source[2:]}/" in ignored


def test_secrets_come_from_a_file_that_is_in_no_repository_and_no_image() -> None:
    asked = set(re.findall(r"\$\{([A-Z_]+):\?", (DEPLOY / "compose.yaml").read_text()))
    offered = dict(
        line.split("=", 1) for line in (DEPLOY / "env.example").read_text().splitlines() if line[:1].isupper()
    )
    assert asked <= offered.keys()
    assert set(offered.values()) == {""}
    assert ".env" in (DEPLOY / ".gitignore").read_text().splitlines()
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            assert value.startswith("${") or not re.search("PASSWORD|SECRET|TOKEN|KEY", name)


def test_who_stops_the_gateway_waits_until_it_has_drained() -> None:
    gateway = Config.load(DEPLOY / "corea.toml").gateway
    drain_s = gateway.drain_s + gateway.drain_notice_s
    assert seconds(SERVICES["gateway"]["stop_grace_period"]) > drain_s
    assert seconds(unit()["TimeoutStopSec"]) > drain_s
    assert {unit()["KillSignal"], *instructions("STOPSIGNAL")} == {"SIGTERM"}


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_systemd_knows_every_line_of_the_unit_and_finds_it_closed(tmp_path: Path) -> None:
    binary = unit()["ExecStart"].split()[0]
    here = tmp_path / "corea.service"
    here.write_text((DEPLOY / "corea.service").read_text().replace(binary, sys.executable))
    verified = subprocess.run(["systemd-analyze", "verify", str(here)], capture_output=True, text=True, check=False)
    # It also speaks of the machine's own units; ours alone matter.
    assert "corea.service" not in verified.stderr
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=15", str(here)]
    judged = subprocess.run(command, capture_output=True, text=True, check=False)
    if "offline" in judged.stderr:
        pytest.skip("a systemd that can't judge a file")
    assert judged.returncode == 0, judged.stdout[-200:]


@contextmanager
def served(config: Path, home: Path) -> Iterator[str]:
    """What the image starts, on a free port: the gateway's address."""
    words = [word if word != "8080" else "0" for word in COMMAND]
    environment = {"COREA_HOME": str(home), "COREA_CONFIG": str(config), "COREA_KEYS_SECRET": "x" * 32}
    command = [sys.executable, "-m", *ENTRYPOINT, *words]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, cwd=ROOT) as running:
        assert running.stderr is not None
        try:
            address = next(line for line in running.stderr if "listening on" in line)
            port = re.search(r":(\d+)/v1", json.loads(address)["message"])
            assert port is not None
            yield f"http://127.0.0.1:{port[1]}"
            running.terminate()
            assert running.wait(20) == 0
        finally:
            running.kill()


def test_the_images_command_serves_the_composed_configuration_on_postgresql(tmp_path: Path) -> None:
    from corea.gateway import keys
    from corea.ledger import Ledger

    with fresh("postgresql", tmp_path) as place, served_from_a_thread("ok") as endpoint:
        text = TOML.replace("postgresql://corea@postgres/corea", place.url)
        for tier in ("small", "large"):
            text = text.replace(f"http://{tier}:8000/v1", endpoint.base_url)
        config = tmp_path / "corea.toml"
        config.write_text(text)
        with Ledger.open(place.url) as ledger:
            _, secret = keys.create(ledger, keys.Pepper(b"x" * 32), name="ann")
        with served(config, tmp_path / "home") as address:
            body = {"model": "corea", "messages": [{"role": "user", "content": "6 × 7?"}]}
            url = f"{address}/v1/chat/completions"
            assert httpx.post(url, json=body, timeout=20).status_code == 401
            answer = httpx.post(url, json=body, headers={"authorization": f"Bearer {secret}"}, timeout=20)
            assert answer.status_code == 200
        assert place.sql("SELECT count(*) FROM traces") == [(1,)]
        assert list((tmp_path / "home").glob("*")) == [], "with the ledger elsewhere, nothing is written"
