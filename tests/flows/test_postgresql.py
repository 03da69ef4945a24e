"""The server on PostgreSQL instead of SQLite, as for several people. Not run by default."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from serving import Served, serve, until

from cluster.ports import HOST, ports_for

PLACES = os.pathsep.join([os.environ["PATH"], *map(str, Path("/usr/lib/postgresql").glob("*/bin"))])
"""Debian keeps the server's programs out of the path."""
PROGRAMS = {name: shutil.which(name, path=PLACES) for name in ("initdb", "postgres", "psql")}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.skipif(
        None in PROGRAMS.values(),
        reason="PostgreSQL is not installed (Debian: apt-get install postgresql)",
    ),
]


@dataclass(frozen=True)
class Database:
    port: int
    password: str

    @property
    def url(self) -> str:
        return f"postgresql+asyncpg://prefect:{self.password}@{HOST}:{self.port}/postgres"

    def ask(self, query: str) -> str:
        done = subprocess.run(
            [
                *(str(PROGRAMS["psql"]), "--no-psqlrc", "--tuples-only", "--no-align"),
                *("--host", HOST, "--port", str(self.port), "--user", "prefect", "postgres"),
                *("--command", query),
            ],
            env={**os.environ, "PGPASSWORD": self.password},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout.strip()


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    """An empty one, on loopback, with a password. PostgreSQL refuses to run as root."""
    database = Database(ports_for(["postgresql"])["postgresql"], secrets.token_hex(16))
    owner: dict[str, Any] = {}
    if os.geteuid() == 0:
        owner = {"user": "nobody", "group": "nogroup", "extra_groups": []}
    with tempfile.TemporaryDirectory(prefix="postgresql-") as folder:
        password, data = Path(folder) / "password", Path(folder) / "data"
        password.write_text(database.password)
        if owner:
            for path in (folder, password):
                shutil.chown(path, owner["user"], owner["group"])
        subprocess.run(
            [
                *(str(PROGRAMS["initdb"]), "--pgdata", data, "--username", "prefect"),
                *("--auth", "scram-sha-256", "--pwfile", password, "--no-sync"),
            ],
            cwd=folder,
            stdout=subprocess.DEVNULL,
            check=True,
            **owner,
        )
        process = subprocess.Popen(
            [
                *(str(PROGRAMS["postgres"]), "-D", data, "-p", str(database.port)),
                *("-c", f"listen_addresses={HOST}", "-c", f"unix_socket_directories={folder}"),
            ],
            cwd=folder,
            stderr=subprocess.DEVNULL,
            **owner,
        )
        try:
            until(lambda: database.ask("select 1") == "1", lambda: "PostgreSQL does not answer", 60)
            yield database
        finally:
            # Ends the connections too, instead of waiting for them.
            process.send_signal(signal.SIGINT)
            process.wait(30)


@pytest.fixture(scope="module")
def served(database: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    environment = {"PREFECT_API_DATABASE_CONNECTION_URL": database.url}
    folder = tmp_path_factory.mktemp("postgresql") / "project"
    with serve(folder, environment) as started:
        yield started


def test_deployments_run_with_their_state_in_postgresql(served: Served, database: Database) -> None:
    done = served.call("prefect", "deployment", "run", "distill-pipeline/local", "--watch")
    assert done.returncode == 0, done.stdout + done.stderr
    more = [served.submit("cluster", cluster=None, push=False) for _ in range(2)]
    for run in more:
        assert served.ended(run, "Completed", "Failed", "Crashed").state_name == "Completed"
    assert database.ask("select count(*) from flow_run where state_type = 'COMPLETED'") == "3"
    assert database.ask("select count(*) > 0 from artifact where key = 'result-matrix'") == "t"
    home = served.project / ".prefect"
    assert list(home.rglob("*.db")) == [], "nothing is left for SQLite"
    kept = [file for file in home.rglob("*") if file.is_file()]
    assert not any(database.password.encode() in file.read_bytes() for file in kept)
