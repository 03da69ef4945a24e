"""A spot instance's notice, from a stand-in of EC2's metadata to a real Ray node."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from commands import ROOT
from head import Head

from cluster.notice import notice

ACTION = "/latest/meta-data/spot/instance-action"
SESSION = "for-tests"
BUSY = """
import sys, time, ray
from ray._private.state import state
while not ray.is_initialized():  # a node that has just started is not known yet
    try:
        ray.init(sys.argv[1], logging_level=40)
    except ConnectionError:
        time.sleep(0.2)
actor = ray.remote(type("Worker", (), {"ready": lambda self: 1})).options(num_cpus=1).remote()
ray.get(actor.ready.remote())
print("works", len(state.get_draining_nodes()), flush=True)
while not (draining := state.get_draining_nodes()):
    time.sleep(0.1)
print(*draining.values())
"""
"""With an actor, for a machine without work that is drained is gone at once."""


class Metadata:
    """A machine's metadata, as IMDSv2 tells them.

    Attributes:
        answers: status and content of the next questions for the notice; the last one stays.
        asked: how often the notice was asked for.
    """

    def __init__(self, *answers: tuple[int, str]) -> None:
        self.answers = [*answers]
        self.asked = 0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @contextmanager
    def up(self) -> Iterator[Metadata]:
        metadata = self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                wanted = self.headers["X-aws-ec2-metadata-token-ttl-seconds"]
                known = self.path == "/latest/api/token" and int(wanted) > 0
                self.answer(200 if known else 400, SESSION)

            def do_GET(self) -> None:
                if self.headers["X-aws-ec2-metadata-token"] != SESSION or self.path != ACTION:
                    self.answer(401, "")
                    return
                metadata.asked += 1
                more = len(metadata.answers) > 1
                self.answer(*(metadata.answers.pop(0) if more else metadata.answers[0]))

            def answer(self, status: int, content: str) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content.encode())

            def log_message(self, *_: Any) -> None:
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            self.port = server.server_port
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield self
            server.shutdown()


def going(when: datetime) -> tuple[int, str]:
    return 200, json.dumps({"action": "terminate", "time": when.strftime("%Y-%m-%dT%H:%M:%SZ")})


def test_the_time_of_a_notice_is_read_with_a_token() -> None:
    when = datetime(2026, 11, 27, 8, 22, tzinfo=UTC)
    with Metadata((404, "")).up() as metadata:
        assert notice(metadata.address) is None
    with Metadata(going(when)).up() as metadata:
        assert notice(metadata.address) == when
    untimed = Metadata((200, '{"action": "hibernate"}'))
    with untimed.up(), pytest.raises(ValueError, match="says no time"):
        notice(untimed.address)


@pytest.mark.slow
def test_a_notice_drains_the_machine_that_got_it(tmp_path: Path) -> None:
    when = datetime.now(UTC).replace(microsecond=0) + timedelta(minutes=2)
    # No notice, metadata that are out of order, no notice, and then one.
    answers = [(404, ""), (500, ""), (404, ""), going(when)]
    with Head(cpus=1) as head, Metadata(*answers).up() as metadata:
        environment = {
            "HOME": str(head.home),
            "PATH": os.environ["PATH"],
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": head.token,
        }

        def start(*command: str) -> subprocess.Popen[str]:
            return subprocess.Popen(
                [sys.executable, *command],
                cwd=tmp_path,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )

        with start("-c", BUSY, head.node) as busy:
            try:
                assert busy.stdout is not None
                assert busy.stdout.readline() == "works 0\n"
                # As a file by itself, which is how it comes to a machine.
                watcher = start(
                    *(str(ROOT / "cluster/notice.py"), "--address", head.node),
                    *("--metadata", metadata.address, "--every", "0.2"),
                )
                _, said = watcher.communicate(timeout=120)
                deadline, _ = busy.communicate(timeout=60)
            finally:
                busy.kill()
        assert watcher.returncode == 0, said
        assert "500 Server Error" in said
        assert when.isoformat() in said
        assert metadata.asked == len(answers)
        assert abs(int(deadline) / 1000 - when.timestamp()) < 5
