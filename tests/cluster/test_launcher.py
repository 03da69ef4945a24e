"""What Ray's launcher does on a machine with our configurations, asked of its own code."""

from __future__ import annotations

import json
import re
import shlex
from itertools import pairwise
from typing import Any

import image
import pytest
import yaml
from commands import ROOT
from ray.autoscaler._private.command_runner import DockerCommandRunner
from ray.autoscaler._private.util import prepare_config

from pipeline.machine import WITH_GPU

CONFIGURATIONS = ("aws.yaml", "hosts.yaml")


class Machine:
    """A machine with Docker and the image, as far as the launcher asks; it keeps the commands."""

    def __init__(self) -> None:
        self.commands: list[str] = []

    def run(self, command: str, **_: Any) -> bytes:
        self.commands.append(command)
        if ".Config.Env" in command:
            return json.dumps([f"{k}={v}" for k, v in image.environment().items()]).encode()
        if command == "cat /proc/meminfo || true":
            return b"MemAvailable:   15500000 kB\n"
        return b"docker" if command.startswith("command -v docker") else b""


def docker_run(name: str, *, head: bool) -> list[str]:
    """The command that starts the container of a machine, word by word."""
    config = prepare_config(yaml.safe_load((ROOT / "cluster" / name).read_text()))
    common = {"log_prefix": "", "node_id": "1", "provider": None, "process_runner": None}
    runner = DockerCommandRunner(
        config["docker"],
        **common,
        auth_config=config["auth"],
        cluster_name=config["cluster_name"],
        use_internal_ip=False,
    )
    machine = Machine()
    runner.ssh_command_runner.run = machine.run
    runner.run_init(as_head=head, file_mounts=config["file_mounts"], sync_run_yet=True)
    (found,) = [one for one in machine.commands if one.startswith("docker run ")]
    return shlex.split(found)


@pytest.mark.parametrize("head", [True, False])
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_the_token_and_keys_lie_where_the_images_account_looks(name: str, head: bool) -> None:
    words = docker_run(name, head=head)
    mounts = [after for word, after in pairwise(words) if word == "-v"]
    places = {place for mount in mounts if "/." in (place := mount.split(":")[1])}
    (user,) = [rest for verb, rest in image.steps() if verb == "USER"]
    (home,) = re.findall(rf"useradd --create-home --uid {user} (\S+)", image.TEXT)
    assert f"/home/{home}/.ray/auth_token" in places
    assert all(mount.split(":")[1].startswith(f"/home/{home}/") for mount in mounts)
    # Docker makes missing folders for root, who alone could then write beside the file.
    made = re.findall(rf"install -d -o {home} -g {home} -m 700 (.*)", image.TEXT)[0].split()
    assert {place.rpartition("/")[0] for place in places} <= {*made}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_beside_rays_store_there_is_shared_memory_for_loaders(name: str) -> None:
    config = yaml.safe_load((ROOT / "cluster" / name).read_text())
    for head, role in ((True, "head"), (False, "worker")):
        (size,) = [word for word in docker_run(name, head=head) if word.startswith("--shm-size=")]
        start = " ".join(config[f"{role}_start_ray_commands"])
        (store,) = re.findall(r"--object-store-memory=(\d+)", start)
        gib = int(size.removeprefix("--shm-size=").removesuffix("g"))
        assert gib - int(store) / 2**30 >= WITH_GPU.shared
