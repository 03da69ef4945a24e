"""Tells Ray when EC2 gives notice that this spot instance will be taken away: nobody else does.

Ray then puts nothing new on the machine, and trainings with a worker on it keep a checkpoint. The
file stands for itself, with Ray and nothing of this project: ``cluster/aws.yaml`` brings it to
every worker and starts it beside Ray.
"""

from __future__ import annotations

import argparse
import logging
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import ray
import requests

log = logging.getLogger("notice")

METADATA: Final = "http://169.254.169.254"
EVERY_SECONDS: Final = 5.0
_TIMEOUT: Final = 5.0
_TOKEN_SECONDS: Final = 60


def notice(metadata: str = METADATA) -> datetime | None:
    """When EC2 takes this machine away, if it said so; by IMDSv2.

    Args:
        metadata: where the machine's metadata are.

    Raises:
        OSError: they do not answer.
        ValueError: they answer something else.
    """
    latest = f"{metadata}/latest"
    with requests.Session() as session:
        session.trust_env = False  # a proxy would ask about its own machine
        lifetime = {"X-aws-ec2-metadata-token-ttl-seconds": str(_TOKEN_SECONDS)}
        token = session.put(f"{latest}/api/token", headers=lifetime, timeout=_TIMEOUT)
        token.raise_for_status()
        action = session.get(
            f"{latest}/meta-data/spot/instance-action",
            headers={"X-aws-ec2-metadata-token": token.text},
            timeout=_TIMEOUT,
        )
    if action.status_code == requests.codes.not_found:
        return None
    action.raise_for_status()
    try:
        return datetime.fromisoformat(action.json()["time"]).astimezone(UTC)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{action.url} says no time: {action.text}") from error


def drain(address: str, until: datetime) -> None:
    """Tells Ray that the machine this runs on will be gone.

    Args:
        address: of the cluster, HOST:PORT.
        until: when.

    Raises:
        OSError: Ray does not answer, or runs no node here.
        subprocess.CalledProcessError: Ray refused it; ``stderr`` says why.
    """
    ray.init(address, logging_level=logging.ERROR, log_to_driver=False)
    try:
        node = ray.get_runtime_context().get_node_id()
    finally:
        ray.shutdown()
    left = max(1, int((until - datetime.now(UTC)).total_seconds()))
    subprocess.run(
        [
            *(str(Path(sys.executable).with_name("ray")), "drain-node", "--address", address),
            *("--node-id", node, "--reason", "DRAIN_NODE_REASON_PREEMPTION"),
            *("--reason-message", "EC2 takes the spot instance away"),
            *("--deadline-remaining-seconds", str(left)),
        ],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )


def watch(address: str, metadata: str = METADATA, every: float = EVERY_SECONDS) -> None:
    """Waits for the notice, and hands it on; tries again whatever does not answer.

    Args:
        address: of the cluster, HOST:PORT.
        metadata: where the machine's metadata are.
        every: seconds between two looks.
    """
    said = ""
    while True:
        try:
            if until := notice(metadata):
                log.info("this machine will be taken away at %s", until.isoformat())
                drain(address, until)
                log.info("Ray knows it")
                return
        except (OSError, ValueError, RuntimeError, subprocess.SubprocessError) as error:
            fault = f"{error} {getattr(error, 'stderr', None) or ''}".strip()
            if fault != said:  # once, not every few seconds
                log.warning("%s; tried again every %g s", fault, every)
            said = fault
        time.sleep(every)


def main() -> None:
    """The command line: ``python notice.py --address HOST:PORT``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", required=True, help="of the cluster, HOST:PORT")
    parser.add_argument("--metadata", default=METADATA, help="where the machine's metadata are")
    parser.add_argument("--every", type=float, default=EVERY_SECONDS, help="seconds between looks")
    chosen = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    watch(chosen.address, chosen.metadata, chosen.every)


if __name__ == "__main__":
    main()
