"""A real Ray head of its own, with its job server on loopback behind a token."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import requests

from cluster.seaweedfs import Credentials
from pipeline.files import write_whole

_WAIT: Final = 90.0


def nodes_alive(address: str, token: str) -> int | None:
    """How many nodes a cluster has, once its job server answers."""
    try:
        answer = requests.get(
            f"{address}/nodes?view=summary",
            headers={"Authorization": f"Bearer {token}"},
            timeout=5,
        )
    except requests.RequestException:
        return None
    if answer.status_code != 200:
        return None
    nodes: list[dict[str, Any]] = answer.json()["data"]["summary"]
    return len([one for one in nodes if one.get("raylet", {}).get("state") == "ALIVE"])


class Head:
    """One node: as a context manager it is up for the length of the block.

    Args:
        cpus: as Ray counts them.
        environment: of its machine, beside what Ray needs.
        gpus: as Ray counts them; there need be none.
        options: more of them for ``ray start``.

    Attributes:
        address: of its job server.
        node: for commands that join it.
        token: that opens it.
        home: of whoever started it.
        logs: the folder of what all its processes say.
    """

    def __init__(
        self,
        cpus: int = 2,
        environment: Mapping[str, str] | None = None,
        *,
        gpus: int = 0,
        options: Sequence[str] = (),
    ) -> None:
        self.token = "tested-" + os.urandom(16).hex()
        # Ray's sockets lie below it, and their paths may have a hundred characters.
        self.home = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
        self._cpus, self._gpus, self._environment = cpus, gpus, environment or {}
        self._options = options
        self._ports = free_ports(6)
        self.address = f"http://127.0.0.1:{self._ports[0]}"
        self.node = f"127.0.0.1:{self._ports[1]}"
        self.logs = self.home / "session_latest/logs"

    def __enter__(self) -> Self:
        names = (
            *("dashboard-port", "port", "ray-client-server-port", "dashboard-agent-listen-port"),
            *("dashboard-agent-grpc-port", "metrics-export-port"),
        )
        ports = [f"--{name}={port}" for name, port in zip(names, self._ports, strict=True)]
        with (self.home / "out.txt").open("wb") as out:
            self._process = subprocess.Popen(
                [
                    *(
                        str(Path(sys.executable).with_name("ray")),
                        "start",
                        "--head",
                        "--block",
                        *ports,
                    ),
                    *("--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1"),
                    *(
                        f"--num-cpus={self._cpus}",
                        f"--num-gpus={self._gpus}",
                        "--object-store-memory=200000000",
                    ),
                    *(f"--temp-dir={self.home}", "--disable-usage-stats", *self._options),
                ],
                # Nothing of the caller's: no keys, no path to this project's code.
                env={
                    "HOME": str(self.home),
                    "PATH": f"{Path(sys.executable).parent}:{os.defpath}",
                    "RAY_AUTH_MODE": "token",
                    "RAY_AUTH_TOKEN": self.token,
                    "OMP_NUM_THREADS": "1",
                    **self._environment,
                },
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + _WAIT
        while not self._answers():
            said = (self.home / "out.txt").read_text()
            assert self._process.poll() is None, said
            assert time.monotonic() < deadline, said
            time.sleep(0.2)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        # A node is taken away as a crash would take it; Ray's own end takes half a minute.
        end_session(self._process.pid)
        self._process.wait()
        shutil.rmtree(self.home, ignore_errors=True)

    @contextmanager
    def keys(self, credentials: Credentials) -> Iterator[None]:
        """Keys of the machine itself for S3, in a file that only its owner may read."""
        path = self.home / ".aws/credentials"
        content = (
            f"[default]\naws_access_key_id = {credentials.access_key}\n"
            f"aws_secret_access_key = {credentials.secret_key}\n"
        )
        write_whole(path, content, mode=0o600)
        try:
            yield
        finally:
            path.unlink()

    def _answers(self) -> bool:
        try:
            answer = requests.get(
                f"{self.address}/api/jobs/",
                headers={"Authorization": f"Bearer {self.token}"},
                timeout=5,
            )
        except requests.RequestException:
            return False
        return answer.status_code == 200


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens at now."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


def end_session(leader: int) -> None:
    """Ends at once what is left of the processes of a session."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == leader:
            try:
                os.kill(int(path.parent.name), signal.SIGKILL)
            except ProcessLookupError:
                continue
