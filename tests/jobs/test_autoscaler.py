"""Waiting for workers' room on a cluster whose autoscaler (Ray's newer one) brings machines.

Its machines are more nodes on this one, which Ray's own provider for tests starts.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from commands import ROOT
from head import Head
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID

pytestmark = pytest.mark.slow

MACHINES = 2
WAITS = """
import logging, sys
import ray
from pipeline.compute import Compute
from pipeline.errors import UsageError
from pipeline.jobs.cluster import join, wait_for
logging.basicConfig(level=logging.INFO, format="%(message)s")
join({})
def room():
    return sum(node["Alive"] and node["Resources"].get("CPU", 0) == 2 for node in ray.nodes())
logging.info("at first %d", room())
wait_for(Compute(workers=2, threads=2, wait=120))
logging.info("then %d", room())
wait_for(Compute(workers=3, min_workers=2, threads=2, wait=1))
try:
    wait_for(Compute(workers=3, threads=2, wait=1))
except UsageError as error:
    logging.info("refused: %s", error)
"""


def test_machines_are_brought_for_the_workers_and_fewer_will_do(tmp_path: Path) -> None:
    config = tmp_path / "cluster.json"
    of_the_head = {
        # The provider and the autoscaler know the head by this number.
        "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
        "RAY_enable_autoscaler_v2": "1",
        "RAY_FAKE_CLUSTER": "1",
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
    }
    head = Head(cpus=0, environment=of_the_head, options=[f"--autoscaling-config={config}"])
    kind = {"node_config": {}, "min_workers": 0}
    provider = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
    machine = {"CPU": 2, "object_store_memory": 100_000_000}
    content = {
        "cluster_name": "tested",
        "max_workers": MACHINES,
        "idle_timeout_minutes": 10,
        "provider": {
            "type": "external",
            "module": provider,
            "gcs_address": head.node,
            "head_node_id": FAKE_HEAD_NODE_ID,
            "launch_multiple": True,
        },
        "available_node_types": {
            "ray.head.default": {**kind, "resources": {"CPU": 0}, "max_workers": 0},
            "worker": {**kind, "resources": machine, "max_workers": MACHINES},
        },
        "head_node_type": "ray.head.default",
        # The autoscaler wants these, if only empty.
        **{name: {} for name in ("auth", "docker", "file_mounts")},
        **{name: [] for name in ("cluster_synced_files", "initialization_commands")},
        **{f"{when}setup_commands": [] for when in ("", "head_", "worker_")},
        **{f"{role}_start_ray_commands": [] for role in ("head", "worker")},
    }
    config.write_text(json.dumps(content))
    with head:
        done = subprocess.run(
            [sys.executable, "-c", WAITS],
            cwd=ROOT,
            env={
                "HOME": str(head.home),
                "PATH": os.environ["PATH"],
                "RAY_ADDRESS": head.node,
                "RAY_AUTH_MODE": "token",
                "RAY_AUTH_TOKEN": head.token,
            },
            check=False,
            capture_output=True,
            text=True,
            timeout=240,
        )
        said = done.stderr
        logs = "\n".join(path.read_text()[-4000:] for path in head.logs.glob("monitor*"))
    assert done.returncode == 0, said + logs
    assert "at first 0\nwaiting for room for 2 workers, there is for 0\n" in said
    assert f"then {MACHINES}\n" in said
    assert "2 workers have room after 1 s: they begin" in said
    assert "refused: DISTILL_WORKERS=3, but after 1 s the cluster has room for 2" in said
