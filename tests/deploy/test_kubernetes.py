"""The manifests in deploy/kubernetes, as far as a machine without a cluster can try them: valid, and of one mind."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate as validate  # type: ignore[import-untyped]
import pytest
import yaml  # type: ignore[import-untyped]

from bench.sizing import Assumptions
from corea.build import tiers_of
from corea.config import Config, OpenAITier
from corea.gateway.app import _LAST_TRACES_S, OPEN_PATHS
from corea.gateway.keys import SECRET_ENV
from corea.gateway_config import check_exposure

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "deploy" / "kubernetes"
OVERLAYS = ("vllm", "sglang")
#: The oldest that knows a pause before the end (``preStop.sleep``), and the newest whose schemas we have.
VERSIONS = ("1.30", "1.37")
Resource = dict[str, Any]

every_overlay = pytest.mark.parametrize("overlay", OVERLAYS)


def built(folder: Path) -> Iterator[Resource]:
    """What kustomize makes of it, but for the hash in the ConfigMap's name. What this does not know is refused."""
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    assert kustomization.keys() <= {"apiVersion", "kind", "namespace", "resources", "configMapGenerator"}
    for name in kustomization["resources"]:
        path = folder / name
        yield from built(path) if path.is_dir() else yaml.safe_load_all(path.read_text())
    for made in kustomization.get("configMapGenerator", ()):
        data = {name: (folder / name).read_text() for name in made["files"]}
        yield {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": made["name"]}, "data": data}


def resources(overlay: str) -> dict[tuple[str, str], Resource]:
    found = list(built(KUBERNETES / overlay))
    by_name = {(one["kind"], one["metadata"]["name"]): one for one in found}
    assert len(by_name) == len(found)
    return by_name


def pod(deployment: Resource) -> Resource:
    spec: Resource = deployment["spec"]["template"]["spec"]
    return spec


def container(deployment: Resource) -> Resource:
    (only,) = pod(deployment)["containers"]
    return dict(only)


def config_of(overlay: str) -> Config:
    return Config.load(KUBERNETES / overlay / "corea.toml")


def instruction(name: str) -> str:
    """What follows the last of a Dockerfile's instructions of that name."""
    whole = re.sub(r"\\\n\s*", "", (ROOT / "deploy" / "Dockerfile").read_text())
    return [line.partition(" ")[2].strip() for line in whole.splitlines() if line.startswith(f"{name} ")][-1]


def quantity(text: str) -> float:
    found = re.fullmatch(r"(\d+)(Mi|Gi)", text)
    assert found is not None, text
    return int(found[1]) * {"Mi": 2**20, "Gi": 2**30}[found[2]]


@every_overlay
@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_knows_every_field_of_every_resource(overlay: str, version: str) -> None:
    for resource in built(KUBERNETES / overlay):
        validate.validate(resource, version, strict=True)


def test_a_field_that_is_misspelt_would_be_told() -> None:
    gateway = resources("vllm")["Deployment", "corea"]
    pod(gateway)["terminationGracePeriodSecond"] = 1
    with pytest.raises(validate.ValidationError):
        validate.validate(gateway, VERSIONS[0], strict=True)


@every_overlay
@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_kustomize_makes_of_it_what_these_tests_read(overlay: str) -> None:
    command = ["kubectl", "kustomize", str(KUBERNETES / overlay)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    theirs = {one["kind"]: one for one in yaml.safe_load_all(text) if one["kind"] == "ConfigMap"}
    config = theirs["ConfigMap"]
    assert config["metadata"]["name"].startswith("corea-config-")
    ours = resources(overlay)
    for one in yaml.safe_load_all(text):
        assert one["metadata"].pop("namespace") == "corea"
        name = one["metadata"]["name"] = one["metadata"]["name"].replace(config["metadata"]["name"], "corea-config")
        for volume in pod(one)["volumes"] if one["kind"] == "Deployment" else ():
            if "configMap" in volume:
                assert volume["configMap"] == {"name": config["metadata"]["name"]} or name != "corea"
                volume["configMap"] = {"name": "corea-config"}
        assert one == ours.pop((one["kind"], name))
    assert ours == {}


@every_overlay
def test_the_gateway_reads_the_configuration_where_its_image_looks_for_it(overlay: str) -> None:
    gateway, home = resources(overlay)["Deployment", "corea"], ROOT / "deploy" / "Dockerfile"
    (where,) = re.findall(r"COREA_CONFIG=(\S+)", home.read_text())
    (volume,) = (one for one in pod(gateway)["volumes"] if "configMap" in one)
    (mount,) = (one for one in container(gateway)["volumeMounts"] if one["name"] == volume["name"])
    (file,) = resources(overlay)["ConfigMap", volume["configMap"]["name"]]["data"]
    assert f"{mount['mountPath']}/{file}" == where
    assert mount["readOnly"] is True


@every_overlay
def test_each_tier_is_asked_where_a_server_serves_it_by_that_name(overlay: str) -> None:
    config, found = config_of(overlay), resources(overlay)
    for tier, made in zip(config.tiers, tiers_of(config), strict=True):
        assert isinstance(tier, OpenAITier)
        assert made.price is not None
        service, server = found["Service", tier.name], found["Deployment", tier.name]
        (port,) = service["spec"]["ports"]
        assert tier.base_url == f"http://{tier.name}:{port['port']}/v1"
        assert service["spec"]["selector"] == server["spec"]["template"]["metadata"]["labels"]
        args = container(server)["args"]
        assert f"--served-model-name={tier.model}" in args
        assert f"--port={port['port']}" in args
        assert {one["containerPort"] for one in container(server)["ports"]} == {port["port"]}


@every_overlay
def test_a_model_is_split_over_as_many_gpus_as_its_server_gets(overlay: str) -> None:
    given = Assumptions()
    for tier in ("small", "large"):
        server = container(resources(overlay)["Deployment", tier])
        split = re.search(r"--(?:tensor-parallel|tp)-size=(\d+)", " ".join(server["args"]))
        gpus = int(server["resources"]["limits"]["nvidia.com/gpu"])
        assert gpus == (int(split[1]) if split else 1)
        assert gpus == getattr(given, f"{tier}_gpus"), "the sizing guide speaks of these servers"


@every_overlay
def test_prices_are_those_that_the_sizing_guide_works_out(overlay: str) -> None:
    given = Assumptions()
    for tier in config_of(overlay).tiers:
        assert tier.prices is not None
        usd = given.usd_per_million(tier.name)
        assert tier.prices.output == pytest.approx(usd, rel=0.05)
        assert tier.prices.input == pytest.approx(usd * given.prompt_weight, rel=0.05)


def test_vllm_is_of_the_version_that_compose_runs() -> None:
    (composed,) = set(re.findall(r"VLLM_IMAGE:-(\S+)\}", (ROOT / "deploy" / "compose.yaml").read_text()))
    for tier in ("small", "large"):
        assert container(resources("vllm")["Deployment", tier])["image"] == composed


@every_overlay
def test_probes_ask_the_port_and_paths_that_need_no_key(overlay: str) -> None:
    gateway = container(resources(overlay)["Deployment", "corea"])
    (port,) = gateway["ports"]
    assert str(port["containerPort"]) == instruction("EXPOSE")
    command = json.loads(instruction("CMD"))
    assert command[command.index("--port") + 1] == instruction("EXPOSE")
    assert "args" not in gateway
    assert "command" not in gateway
    probes = {name: gateway[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
    assert {name: probe["path"] for name, probe in probes.items()} == {
        "startup": "/healthz", "liveness": "/healthz", "readiness": "/readyz",
    }  # fmt: skip
    assert {probe["path"] for probe in probes.values()} <= OPEN_PATHS
    assert {probe["port"] for probe in probes.values()} == {port["name"]}
    (served,) = resources(overlay)["Service", "corea"]["spec"]["ports"]
    assert served["targetPort"] == port["name"]
    check_exposure(command[command.index("--host") + 1], has_keys=config_of(overlay).gateway.virtual_keys)


@every_overlay
def test_a_replica_that_leaves_has_time_to_finish_what_it_began(overlay: str) -> None:
    config, gateway = config_of(overlay), resources(overlay)["Deployment", "corea"]
    settings = config.gateway
    assert settings.drain_s >= config.cascade.deadline_s
    wanted_s = settings.drain_notice_s + settings.drain_s + _LAST_TRACES_S
    assert pod(gateway)["terminationGracePeriodSeconds"] > wanted_s
    ready = container(gateway)["readinessProbe"]
    assert settings.drain_notice_s > ready["periodSeconds"] * ready["failureThreshold"]
    for tier in config.tiers:
        server = resources(overlay)["Deployment", tier.name]
        pause_s = container(server)["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert pod(server)["terminationGracePeriodSeconds"] > pause_s


@every_overlay
def test_a_starting_replica_is_waited_for_while_another_one_migrates(overlay: str) -> None:
    from corea.ledger.postgres import PREPARE_TIMEOUT_S

    probe = container(resources(overlay)["Deployment", "corea"])["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] > PREPARE_TIMEOUT_S


@every_overlay
def test_the_gateway_may_do_nothing_that_it_need_not(overlay: str) -> None:
    gateway = resources(overlay)["Deployment", "corea"]
    user, _, group = instruction("USER").partition(":")
    outer, inner = pod(gateway)["securityContext"], container(gateway)["securityContext"]
    assert (outer["runAsUser"], outer["runAsGroup"], outer["fsGroup"]) == (int(user), int(group), int(group))
    assert outer["runAsNonRoot"] is True
    assert inner == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip
    assert pod(gateway)["automountServiceAccountToken"] is False
    writable = [one["mountPath"] for one in container(gateway)["volumeMounts"] if not one.get("readOnly")]
    assert writable == [instruction("VOLUME"), "/tmp"]
    for server in ("small", "large"):
        model = container(resources(overlay)["Deployment", server])["securityContext"]
        assert model["allowPrivilegeEscalation"] is False


@every_overlay
def test_secrets_are_named_and_never_there(overlay: str) -> None:
    found = resources(overlay)
    assert "Secret" not in {kind for kind, _ in found}
    wanted = {one["name"]: one for one in container(found["Deployment", "corea"])["env"]}
    assert wanted.keys() == {"PGPASSWORD", SECRET_ENV}
    for deployment in (one for (kind, _), one in found.items() if kind == "Deployment"):
        for variable in container(deployment)["env"]:
            assert variable["valueFrom"]["secretKeyRef"]["key"] == variable["name"]
    url = config_of(overlay).ledger.url
    assert url is not None
    assert re.fullmatch(r"postgresql://\w+@[\w.-]+/\w+", url), "no password"


@every_overlay
def test_a_full_replica_runs_out_of_its_core_before_its_places_and_its_memory(overlay: str) -> None:
    config, gateway = config_of(overlay), container(resources(overlay)["Deployment", "corea"])
    assert config.gateway.max_active == Assumptions().max_active
    for tier in config.tiers:
        assert isinstance(tier, OpenAITier)
        assert tier.max_connections >= config.gateway.max_active
    (measured,) = (
        one for one in json.loads((ROOT / "bench" / "results" / "replicas.json").read_text())["figures"]
        if one["unit"] == "kB"
    )  # fmt: skip
    full = config.gateway.max_active * measured["value"] * 1e3
    assert quantity(gateway["resources"]["limits"]["memory"]) > 4 * full
    assert gateway["resources"]["requests"]["cpu"] == "1"
    assert "cpu" not in gateway["resources"]["limits"]


@every_overlay
def test_the_number_of_replicas_is_the_autoscalers_alone(overlay: str) -> None:
    found = resources(overlay)
    assert "replicas" not in found["Deployment", "corea"]["spec"]
    scaler = found["HorizontalPodAutoscaler", "corea"]["spec"]
    assert scaler["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "corea"}
    (metric,) = scaler["metrics"]
    assert metric["resource"]["target"]["averageUtilization"] == Assumptions().gateway_use * 100
    labels = found["Deployment", "corea"]["spec"]["template"]["metadata"]["labels"]
    assert found["PodDisruptionBudget", "corea"]["spec"]["selector"]["matchLabels"] == labels
    assert scaler["minReplicas"] > found["PodDisruptionBudget", "corea"]["spec"]["maxUnavailable"]


@every_overlay
def test_only_the_gateway_reaches_the_models_and_it_reaches_them_and_the_database(overlay: str) -> None:
    found = resources(overlay)
    gateway, models = found["NetworkPolicy", "corea"]["spec"], found["NetworkPolicy", "corea-models"]["spec"]

    def selects(selector: Resource, name: str) -> bool:
        labels = found["Deployment", name]["spec"]["template"]["metadata"]["labels"]
        return bool(selector["matchLabels"].items() <= labels.items())

    assert selects(gateway["podSelector"], "corea")
    (asked, database, _names) = gateway["egress"]
    (came,) = models["ingress"]
    for tier in config_of(overlay).tiers:
        assert selects(models["podSelector"], tier.name)
        assert not selects(gateway["podSelector"], tier.name)
        assert selects(asked["to"][0]["podSelector"], tier.name)
    assert selects(came["from"][0]["podSelector"], "corea")
    assert came["ports"] == asked["ports"] == [{"protocol": "TCP", "port": 8000}]
    assert database == {"ports": [{"protocol": "TCP", "port": 5432}]}


def test_prometheus_is_told_the_services_port_and_a_key() -> None:
    monitor = yaml.safe_load((KUBERNETES / "monitoring" / "servicemonitor.yaml").read_text())
    service = resources("vllm")["Service", "corea"]
    (endpoint,) = monitor["spec"]["endpoints"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert endpoint["port"] in {one["name"] for one in service["spec"]["ports"]}
    assert endpoint["path"] not in OPEN_PATHS
    assert endpoint["authorization"]["credentials"]["name"]
