"""Several hosts on one machine: namespaces on a bridge, each with a disk and a name of its own.

What differs from real hosts is that they share a kernel, the processors and the Python environment.
Making them needs root.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from head import nodes_alive

JOB_SERVER: Final = 8265
_GCS: Final = 6379
_WAIT: Final = 120.0
_ENTER: Final = """
hostname "$1" && mount -t tmpfs -o size=2g tmpfs "$2" && mount --bind "$3" /etc/hosts
shift 3
exec "$@"
"""


def possible() -> bool:
    """Whether this machine and who runs the tests can make hosts."""
    if os.geteuid() or not all(map(shutil.which, ("ip", "unshare", "setpriv"))):
        return False
    probe = f"sdp{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, check=False)
    subprocess.run(["ip", "netns", "delete", probe], capture_output=True, check=False)
    return made.returncode == 0


class Rig:
    """Hosts, each a Ray node, the first the head. As a context manager they are up for a block.

    Attributes:
        address: of the job server.
        token: that opens it.
        disk: a folder that is another one on each host, and empty here.

    Args:
        hosts: how many.
        s3: the endpoint of an S3 server on this machine's loopback, which hosts are to reach.
        cpus: of each host, as Ray counts them.
    """

    def __init__(self, hosts: int, s3: str, cpus: int = 1) -> None:
        self.token = "tested-" + os.urandom(16).hex()
        # Short: a name of an interface has 15 characters.
        self._name = f"sd{os.getpid() % 100_000}"
        self._net = f"10.{64 + os.getpid() % 64}.{os.getpid() // 64 % 256}"
        self._folder = Path(tempfile.mkdtemp(prefix="rig-", dir="/tmp"))
        self._hosts = [f"{self._name}h{number}" for number in range(1, hosts + 1)]
        self._cpus = cpus
        self.disk = self._folder / "disk"
        self._nodes: dict[int, subprocess.Popen[bytes]] = {}
        self._forward = Forward(f"{self._net}.254", s3)
        self.address = f"http://{self._net}.1:{JOB_SERVER}"

    @property
    def s3(self) -> str:
        """The endpoint of the S3 server, as hosts see it; this machine sees it there too."""
        return self._forward.endpoint

    def __enter__(self) -> Self:
        try:
            self._make()
            self._forward.start()
            for number in range(1, len(self._hosts) + 1):
                self.start(number)
            self.wait_for_all()
        except BaseException:
            self._take_away()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._take_away()

    def start(self, number: int) -> None:
        """Starts a host's Ray; what is left of its last one is ended."""
        self.end(number)
        role = [f"--address={self._net}.1:{_GCS}"]
        if number == 1:
            role = ["--head", f"--port={_GCS}", "--dashboard-host=0.0.0.0"]
            role += [f"--dashboard-port={JOB_SERVER}"]
        self._nodes[number] = self._launch(number, role)
        if number == 1:
            self._wait_until(lambda: nodes_alive(self.address, self.token) is not None)

    def end(self, number: int) -> None:
        """Ends all that runs on a host at once, as a loss of power would."""
        for pid in self.processes(number):
            kill(pid)
        if node := self._nodes.pop(number, None):
            node.wait()

    def alive(self, number: int) -> bool:
        """Whether a host's Ray has not ended."""
        return number in self._nodes and self._nodes[number].poll() is None

    def cut_off(self, number: int) -> None:
        """Takes a host off the network."""
        _ip("link", "set", f"{self._hosts[number - 1]}v", "down")

    def reconnect(self, number: int) -> None:
        """Puts a host back on the network."""
        _ip("link", "set", f"{self._hosts[number - 1]}v", "up")

    def processes(self, number: int) -> dict[int, str]:
        """What runs on a host: numbers of processes and command lines."""
        found = {}
        for pid in map(int, _ip("netns", "pids", self._hosts[number - 1]).split()):
            try:
                command = Path(f"/proc/{pid}/cmdline").read_bytes()
            except OSError:
                continue
            found[pid] = command.replace(b"\0", b" ").decode()
        return found

    def wait_for_all(self) -> None:
        """Waits until every host that was started is a node of the cluster."""
        self._wait_until(lambda: nodes_alive(self.address, self.token) == len(self._nodes))

    def _make(self) -> None:
        bridge = self._name
        _ip("link", "add", bridge, "type", "bridge")
        _ip("address", "add", f"{self._net}.254/24", "dev", bridge)
        _ip("link", "set", bridge, "up")
        names = ["127.0.0.1 localhost"]
        for number, host in enumerate(self._hosts, 1):
            names.append(f"{self._net}.{number} {host}")
            _ip("netns", "add", host)
            _ip("link", "add", f"{host}v", "type", "veth", "peer", "name", "eth0", "netns", host)
            _ip("link", "set", f"{host}v", "master", bridge, "up")
            _ip("-n", host, "address", "add", f"{self._net}.{number}/24", "dev", "eth0")
            _ip("-n", host, "link", "set", "eth0", "up")
            _ip("-n", host, "link", "set", "lo", "up")
        (self._folder / "hosts").write_text("\n".join(names) + "\n")
        self.disk.mkdir()

    def _launch(self, number: int, role: list[str]) -> subprocess.Popen[bytes]:
        host, address = self._hosts[number - 1], f"{self._net}.{number}"
        ray = str(Path(sys.executable).with_name("ray"))
        with (self._folder / f"{host}.txt").open("wb") as out:
            return subprocess.Popen(
                [
                    # Whatever ends this process ends its hosts, and all that runs on them.
                    *("setpriv", "--pdeathsig", "KILL", "ip", "netns", "exec", host, "unshare"),
                    *("--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"),
                    *("sh", "-ec", _ENTER, "sh", host, str(self.disk), str(self._folder / "hosts")),
                    *(ray, "start", "--block", "--disable-usage-stats", *role),
                    *(f"--node-ip-address={address}", f"--num-cpus={self._cpus}"),
                    *("--object-store-memory=100000000", f"--temp-dir={self.disk / 'ray'}"),
                ],
                env={
                    "HOME": str(self.disk),
                    "PATH": f"{Path(sys.executable).parent}:/usr/sbin:/sbin:{os.defpath}",
                    "RAY_AUTH_MODE": "token",
                    "RAY_AUTH_TOKEN": self.token,
                    "OMP_NUM_THREADS": "1",
                },
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _wait_until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _WAIT
        while not condition():
            said = "\n".join(path.read_text() for path in self._folder.glob("*.txt"))
            assert all(node.poll() is None for node in self._nodes.values()), said
            assert time.monotonic() < deadline, said
            time.sleep(0.3)

    def _take_away(self) -> None:
        for number, host in enumerate(self._hosts, 1):
            if (Path("/run/netns") / host).exists():
                self.end(number)
        self._forward.stop()
        for host in self._hosts:
            # A namespace takes its end of the link along only once its last process is gone.
            for made in (("link", f"{host}v"), ("netns", host)):
                command = ["ip", made[0], "delete", made[1]]
                subprocess.run(command, capture_output=True, check=False)
        subprocess.run(["ip", "link", "delete", self._name], capture_output=True, check=False)
        shutil.rmtree(self._folder, ignore_errors=True)


class Forward:
    """Hands connections on to a server on loopback; signatures for this address are good there."""

    def __init__(self, host: str, endpoint: str) -> None:
        self._host, self._port = host, 9000
        self._to = ("127.0.0.1", int(endpoint.rsplit(":", 1)[1]))
        self._server: socket.socket | None = None

    @property
    def endpoint(self) -> str:
        return f"http://{self._host}:{self._port}"

    def start(self) -> None:
        self._server = socket.create_server((self._host, self._port))
        threading.Thread(target=self._accept, args=(self._server,), daemon=True).start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown(socket.SHUT_RDWR)
            self._server.close()

    def _accept(self, server: socket.socket) -> None:
        while True:
            try:
                client, _ = server.accept()
                target = socket.create_connection(self._to)
            except OSError:
                return
            for source, sink in ((client, target), (target, client)):
                threading.Thread(target=_pump, args=(source, sink), daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            sink.sendall(data)
    except OSError:
        pass
    finally:
        for one in (source, sink):
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue


def kill(pid: int) -> None:
    """Ends a process at once, if it is still there."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _ip(*arguments: str) -> str:
    return subprocess.run(
        ["ip", *arguments], check=True, capture_output=True, text=True, timeout=20
    ).stdout
