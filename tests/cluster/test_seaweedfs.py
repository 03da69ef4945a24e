"""The local S3 server: started, stopped, killed; what it leaves, and whom it lets in."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from threading import Thread

import boto3
import pytest
from botocore.exceptions import ClientError
from commands import ROOT

from cluster.seaweedfs import Credentials, Server
from pipeline.errors import DataError, StorageError


def command(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cluster.s3", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_data_ports_and_keys_survive_a_stop_and_a_crash(tmp_path: Path) -> None:
    server = Server(tmp_path / "s3")
    try:
        server.start()
        known, process = server.credentials, server.pid
        client = server.client()
        client.put_object(Bucket=known.bucket, Key="a/b", Body=b"kept")
        server.start()
        assert server.pid == process, "a server that runs is left alone"
        for end in (server.stop, server.kill):
            end()
            assert server.pid is None
            server.start()
            assert server.credentials == known
            assert client.get_object(Bucket=known.bucket, Key="a/b")["Body"].read() == b"kept"
        server.stop()
        with socket.socket() as taken:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            taken.bind(("127.0.0.1", int(known.endpoint.rpartition(":")[2])))
            taken.listen()
            with pytest.raises(StorageError, match=r"taken by another program"):
                server.start()
    finally:
        server.stop()


def test_the_command_starts_reports_and_ends(tmp_path: Path) -> None:
    none = command("status", cwd=tmp_path)
    assert none.returncode == 1
    assert "start it with make s3" in none.stderr
    assert command("stop", cwd=tmp_path).returncode == 0
    try:
        done = command("start", "--json", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout)
        assert said["next"] == "source .s3/env"
        secret = Server(tmp_path / ".s3").credentials.secret_key
        assert secret not in done.stdout
        assert command("status", cwd=tmp_path).returncode == 0
        shell = f'. .s3/env; {sys.executable} -c "{LISTED}"'
        found = subprocess.run(
            ["bash", "-c", shell], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        assert found.stdout.strip() == "Enabled us-east-1"
    finally:
        ended = command("stop", cwd=tmp_path)
    assert "stopped: yes" in ended.stdout
    assert Server(tmp_path / ".s3").pid is None
    assert command("status", cwd=tmp_path).returncode == 1


LISTED = (
    "import boto3, os; s3 = boto3.client('s3'); "
    "print(s3.get_bucket_versioning(Bucket=os.environ['S3_BUCKET'])['Status'], "
    "s3.meta.region_name)"
)


def test_nobody_but_the_owner_can_read_the_folder(s3: Server) -> None:
    assert stat.S_IMODE(s3.folder.stat().st_mode) == 0o700
    for name in ("env", "settings.json", "identities.json", "security.toml", "weed.log", "pid"):
        assert stat.S_IMODE((s3.folder / name).stat().st_mode) == 0o600, name
    known = s3.credentials
    assert known.secret_key not in repr(known)
    assert known.secret_key not in s3.log_file.read_text()


def test_it_listens_on_loopback_and_wants_a_key_everywhere(s3: Server) -> None:
    known = s3.credentials
    s3.client().put_object(Bucket=known.bucket, Key="private/note", Body=b"secret")
    ports = json.loads((s3.folder / "settings.json").read_text())["ports"]
    for port in ports.values():
        # 127.0.0.1 in the kernel's table of listeners, and no other address.
        assert listeners(port) == {"0100007F"}
        assert listeners(port + 10_000) == {"0100007F"}
    for url in (
        f"{known.endpoint}/{known.bucket}/private/note",
        f"http://127.0.0.1:{ports['filer']}/buckets/{known.bucket}/private/note",
        f"http://127.0.0.1:{ports['volume']}/1,01",
    ):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(url, timeout=10)  # noqa: S310 - an address of ours
        assert refused.value.code in {401, 403}, url


def listeners(port: int) -> set[str]:
    found = set()
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            address, number = line.split()[1].rsplit(":", 1)
            if int(number, 16) == port and line.split()[3] == "0A":
                found.add(address)
    return found


def test_wrong_keys_and_unknown_buckets_are_refused(s3_environment: Credentials) -> None:
    known = s3_environment
    wrong = boto3.session.Session().client(
        "s3", aws_secret_access_key=known.access_key, aws_access_key_id=known.access_key
    )
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        wrong.put_object(Bucket=known.bucket, Key="x", Body=b"")
    with pytest.raises(ClientError, match="NoSuchBucket"):
        boto3.session.Session().client("s3").put_object(Bucket="made-by-a-typo", Key="x", Body=b"")


def test_two_starts_at_once_make_one_server(tmp_path: Path) -> None:
    servers = [Server(tmp_path / "s3") for _ in range(2)]
    threads = [Thread(target=server.start) for server in servers]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert servers[0].pid == servers[1].pid is not None
    finally:
        servers[0].stop()
        servers[1].stop()


def test_a_pid_file_of_another_process_ends_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "s3"
    folder.mkdir()
    with subprocess.Popen(["sleep", "60"]) as other:
        (folder / "pid").write_text(f"{other.pid} 1")
        server = Server(folder)
        assert server.pid is None
        server.stop()
        assert other.poll() is None
        other.kill()


def test_a_server_that_cannot_run_says_where_to_look(tmp_path: Path) -> None:
    server = Server(tmp_path / "s3")
    with pytest.raises(DataError, match="make s3"):
        _ = server.credentials
    with server:
        pass
    (server.folder / "identities.json").write_text("{")
    with pytest.raises(StorageError, match=r"weed\.log"):
        server.start()
    assert server.pid is None
    (server.folder / "settings.json").write_text("{")
    with pytest.raises(DataError, match=r"settings\.json is damaged"):
        server.start()
