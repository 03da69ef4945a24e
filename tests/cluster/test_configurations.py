"""The configurations of clusters, as far as they can be checked without a provider."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import image
import jsonschema
import kuberay
import pytest
import yaml
from commands import ROOT
from ray._private.runtime_env.packaging import create_package
from ray.autoscaler._private.util import prepare_config, validate_config
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.compute import Compute
from pipeline.machine import WITH_GPU

FOLDER = ROOT / "cluster"
LAUNCHER = ("aws.yaml", "hosts.yaml")
KUBERNETES = ("raycluster.yaml", "rayjob.yaml")
SECRET = re.compile(r"AKIA|ASIA|secret_?access|password|BEGIN [A-Z ]*PRIVATE", re.IGNORECASE)


def documents(name: str) -> list[dict[str, Any]]:
    return [*yaml.safe_load_all((FOLDER / "kubernetes" / name).read_text())]


def ray_cluster(name: str) -> dict[str, Any]:
    spec: dict[str, Any] = documents(name)[-1]["spec"]
    inner: dict[str, Any] = spec.get("rayClusterSpec", spec)
    return inner


def containers(name: str) -> list[dict[str, Any]]:
    spec = ray_cluster(name)
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    return [one for group in groups for one in group["template"]["spec"]["containers"]]


@pytest.mark.parametrize("name", LAUNCHER)
def test_rays_cluster_launcher_takes_the_configuration(name: str) -> None:
    config = yaml.safe_load((FOLDER / name).read_text())
    prepared = prepare_config(config)
    validate_config(prepared)
    assert "RAY_AUTH_MODE=token" in " ".join(config["docker"]["run_options"])
    assert "~/.ray/auth_token" in config["file_mounts"]
    start = " ".join(config["head_start_ray_commands"])
    assert "--dashboard-host=127.0.0.1" in start


@pytest.mark.filterwarnings("ignore")  # what Ray's commands import is full of them
@pytest.mark.parametrize("name", LAUNCHER)
def test_the_launchers_commands_are_commands_of_ray(name: str) -> None:
    config = yaml.safe_load((FOLDER / name).read_text())
    from ray.scripts.scripts import cli  # noqa: PLC0415

    commands = config["head_start_ray_commands"] + config["worker_start_ray_commands"]
    known = {option for one in cli.commands["start"].params for option in one.opts}
    for command in commands:
        program, verb, *options = shlex.split(command)
        if program == "setsid":
            continue
        assert (program, verb in cli.commands) == ("ray", True)
        assert {option.split("=")[0] for option in options} <= known


def test_a_worker_on_aws_looks_for_its_notice_beside_ray_once_a_machine(tmp_path: Path) -> None:
    config = yaml.safe_load((FOLDER / "aws.yaml").read_text())
    *_, start, watch = config["worker_start_ray_commands"]
    assert start.startswith("ray start ")
    assert (ROOT / config["file_mounts"]["~/notice.py"]).exists()
    # The command itself, with a stand-in that goes on until this test lets it end.
    (tmp_path / "notice.py").write_text("import sys; print(*sys.argv[1:]); open('end').read()")
    os.mkfifo(tmp_path / "end")
    environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "RAY_HEAD_IP": "10.0.0.1"}

    def shell(command: str) -> int:
        done = subprocess.run(
            ["bash", "-c", command], cwd=tmp_path, env=environment, check=False, timeout=60
        )
        return done.returncode

    assert shell(watch) == 0, "it does not keep the shell"
    with (tmp_path / "end").open("w"):
        assert shell(watch.replace("--fork", "--fork --wait")) == 1, "one is enough"
    assert shell("flock notice.lock true") == 0
    assert (tmp_path / "notice.log").read_text() == "--address=10.0.0.1:6379\n"


def test_gpu_workers_on_aws_are_spot_first_and_come_on_demand_otherwise() -> None:
    types = yaml.safe_load((FOLDER / "aws.yaml").read_text())["available_node_types"]
    assert types["head"]["resources"] == {"CPU": 0}
    spot, other = types["gpu-spot"], types["gpu-on-demand"]
    assert spot["priority"] > other["priority"]
    assert spot["node_config"].pop("InstanceMarketOptions") == {"MarketType": "spot"}
    spot.pop("priority"), other.pop("priority")
    assert spot == other, "the same node but for its price"
    for kind in types.values():
        assert kind["node_config"]["IamInstanceProfile"]["Name"]
        assert kind["node_config"]["MetadataOptions"]["HttpTokens"] == "required"


@pytest.mark.parametrize("name", KUBERNETES)
def test_kuberay_knows_every_field(name: str) -> None:
    schemas = {"RayCluster": kuberay.CLUSTER, "RayJob": kuberay.JOB}
    (document,) = documents(name)
    jsonschema.validate(document, schemas[document["kind"]])
    assert ray_cluster(name)["rayVersion"] == version("ray")


def test_every_pod_has_the_account_that_stands_by_itself() -> None:
    (account,) = documents("account.yaml")
    jsonschema.validate(account, kuberay.ACCOUNT)
    for name in KUBERNETES:
        spec = ray_cluster(name)
        for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
            used = group["template"]["spec"]["serviceAccountName"]
            assert used == account["metadata"]["name"]


@pytest.mark.parametrize("name", KUBERNETES)
def test_on_kubernetes_nothing_is_open_and_nothing_runs_as_root(name: str) -> None:
    spec = ray_cluster(name)
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["headGroupSpec"]["serviceType"] == "ClusterIP"
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        assert group["template"]["spec"]["securityContext"]["runAsNonRoot"]
    # Longer than Ray holds a machine that is to end.
    for group in spec["workerGroupSpecs"]:
        assert group["template"]["spec"]["terminationGracePeriodSeconds"] > 30
    workers = [one for one in containers(name) if "nvidia.com/gpu" in one["resources"]["limits"]]
    assert [one["name"] for one in workers] == ["ray-worker"]
    for container in containers(name):
        # Ray counts what a pod may use; a limit above the request would promise what is not there.
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert container["envFrom"] == [
            {"secretRef": {"name": "script-distill-s3", "optional": True}}
        ]


@pytest.mark.parametrize("name", KUBERNETES)
def test_a_pod_with_a_gpu_has_what_the_doctor_wants(name: str) -> None:
    (group,) = ray_cluster(name)["workerGroupSpecs"]
    pod = group["template"]["spec"]
    (container,), (shared,) = pod["containers"], pod["volumes"]
    memory = int(container["resources"]["limits"]["memory"].removesuffix("Gi"))
    size = int(shared["emptyDir"]["sizeLimit"].removesuffix("Gi"))
    store = int(group["rayStartParams"]["object-store-memory"]) / 2**30
    assert container["volumeMounts"] == [{"name": shared["name"], "mountPath": "/dev/shm"}]  # noqa: S108 - a name
    assert size - store >= WITH_GPU.shared
    assert memory >= WITH_GPU.memory


def test_both_ways_on_kubernetes_use_the_same_cluster() -> None:
    assert ray_cluster("raycluster.yaml") == ray_cluster("rayjob.yaml")


def test_the_ray_job_runs_a_command_of_ours_with_settings_of_ours() -> None:
    spec = documents("rayjob.yaml")[-1]["spec"]
    python, module, package, command, _ = shlex.split(spec["entrypoint"])
    assert (python, module, package) == ("python", "-m", "pipeline")
    assert CliRunner().invoke(app, [command, "--help"]).exit_code == 0
    environment = yaml.safe_load(spec["runtimeEnvYAML"])["env_vars"]
    known = {f"DISTILL_{name.upper()}" for name in Compute.model_fields}
    assert set(environment) <= known
    assert all(isinstance(value, str) for value in environment.values())


def test_every_configuration_gives_its_machines_the_same_settings_of_ours() -> None:
    found = []
    for name in LAUNCHER:
        options = yaml.safe_load((FOLDER / name).read_text())["docker"]["run_options"]
        ours = [one.removeprefix("--env=") for one in options if one.startswith("--env=DISTILL_")]
        found.append(dict(one.split("=", 1) for one in ours))
    found += [
        {one["name"]: one["value"] for one in container["env"] if "DISTILL_" in one["name"]}
        for name in KUBERNETES
        for container in containers(name)
    ]
    assert {*found[0]} == {"DISTILL_STREAM", "DISTILL_STORAGE", "DISTILL_FAILURES"}
    assert int(found[0]["DISTILL_FAILURES"]) > Compute.model_fields["failures"].default
    assert all(one == found[0] for one in found)


def test_no_secret_stands_in_a_configuration() -> None:
    for path in [*FOLDER.rglob("*.yaml"), FOLDER / "Dockerfile"]:
        for line in path.read_text().splitlines():
            found = SECRET.search(line.replace("--password-stdin", "").replace("-password", ""))
            assert not found, f"{path}: {line}"


def test_the_image_is_pinned_holds_the_lock_and_does_not_run_as_root() -> None:
    text, steps = image.TEXT, image.steps()
    base = [rest for verb, rest in steps if verb == "FROM"]
    assert len(base) == 1
    assert re.fullmatch(r"python:3\.11\.\d+-slim-[a-z]+(@sha256:[0-9a-f]{64})?", base[0])
    users = [rest for verb, rest in steps if verb == "USER"]
    assert users == ["1000"]
    assert f"--uid {users[0]}" in text
    assert steps[-2:] == [("USER", "1000"), ("WORKDIR", "/home/distill")]
    assert not {verb for verb, _ in steps} & {"ADD", "ARG"}
    copied = [shlex.split(rest) for verb, rest in steps if verb == "COPY"]
    assert copied == [["requirements.lock", "/opt/requirements.lock"]]
    assert "pip install --no-cache-dir --no-deps --requirement /opt/requirements.lock" in text
    settings = image.environment()
    assert settings["RAY_AUTH_MODE"] == "token"
    assert settings["HOME"] == "/home/distill"
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert [line for line in ignored if not line.startswith("#")] == ["*", "!requirements.lock"]


def test_a_job_by_hand_brings_code_and_no_data(tmp_path: Path) -> None:
    project = tmp_path / "project"
    wanted = {
        *("pipeline/cli.py", "pipeline/reporting/templates/index.html.j2", "params.yaml"),
        *("dvc.yaml", "dvc.lock", ".dvc/config"),
    }
    refused = {
        *("data/shards/index.json", "models/teacher-ocr/model.safetensors", ".dvc/cache/files/x"),
        *("tests/test_cli.py", "docs/data.md", "reports/index.html", ".dvc/config.local"),
        *("pipeline/data/fontsource/node_modules/x/a.woff2", ".venv/bin/python", ".s3/env"),
        *(".checkpoints/run/x", "exports/student-alone/model.onnx"),
    }
    for name in wanted | refused:
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text("x")
    for name in (".gitignore", ".rayignore"):
        (project / name).write_text((ROOT / name).read_text())
    create_package(str(project), tmp_path / "package.zip", include_gitignore=True)
    with zipfile.ZipFile(tmp_path / "package.zip") as package:
        brought = {name for name in package.namelist() if not name.endswith("/")}
    assert wanted <= brought
    assert not refused & brought
