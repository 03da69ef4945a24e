"""A real S3 server on this machine: SeaweedFS on loopback, with keys of its own.

``make s3`` starts it in ``.s3/`` and ``make s3-stop`` ends it; the data, ports and keys stay there,
so that it comes back as it was. Everything in the folder is for its owner's eyes only.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final, Self

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from pydantic import BaseModel, ConfigDict, ValidationError

from cluster.ports import HOST, check_free, ports_for
from pipeline.errors import DataError, StorageError
from pipeline.files import write_whole

log = logging.getLogger(__name__)

BUCKET: Final = "script-distill"
REGION: Final = "us-east-1"
SERVICES: Final = ("s3", "master", "volume", "filer", "admin")
_WAIT: Final = 60.0


class Credentials(BaseModel):
    """What a client needs to use the server's bucket."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    endpoint: str
    access_key: str
    secret_key: str
    region: str
    bucket: str

    def __repr__(self) -> str:
        """Without the secret: this may end up in a log."""
        return f"Credentials({self.endpoint}, {self.bucket})"

    __str__ = __repr__

    def environment(self) -> dict[str, str]:
        """The variables that boto3, DVC, Ray and this project read."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_DEFAULT_REGION": self.region,
            "S3_BUCKET": self.bucket,
        }


class Settings(BaseModel):
    """What stays the same when the server is started again."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ports: dict[str, int]
    credentials: Credentials


class Server:
    """The server of one folder. It lives on when this process ends, until it is stopped.

    As a context manager it runs for the length of the block.
    """

    def __init__(self, folder: Path, bucket: str = BUCKET) -> None:
        """Nothing is started or written yet.

        Args:
            folder: keeps data, keys, ports and the log; made where it is missing.
            bucket: the name of the versioned bucket, where the folder is new.
        """
        self.folder = folder.absolute()
        self._bucket = bucket
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def env_file(self) -> Path:
        """The file for a shell to source."""
        return self.folder / "env"

    @property
    def log_file(self) -> Path:
        """What the server says."""
        return self.folder / "weed.log"

    @property
    def credentials(self) -> Credentials:
        """How to use the server.

        Raises:
            DataError: it was never started, or its settings are damaged.
        """
        return self._settings().credentials

    @property
    def pid(self) -> int | None:
        """The running server's process, if there is one that is surely it."""
        try:
            number, started = (self.folder / "pid").read_text().split()
        except (FileNotFoundError, ValueError):
            return None
        # Process numbers are given out anew: only the same start makes it the same process.
        return int(number) if _started(int(number)) == started else None

    def start(self) -> None:
        """Starts the server and waits until it keeps what it is given.

        One that runs already is left alone.

        Raises:
            DataError: its settings are damaged.
            StorageError: it ended by itself or did not answer; its log says why.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        with self._alone():
            if self.pid is not None:
                return
            if not (self.folder / "settings.json").exists():
                self._configure()
            try:
                self._launch()
                self._wait_until_ready()
            except BaseException:
                self.stop()
                raise

    def stop(self) -> None:
        """Ends the server and waits for it; without one nothing happens."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Ends the server at once, as a crash would."""
        self._end(signal.SIGKILL)

    def client(self) -> Any:
        """A boto3 client with all rights and without retries, whatever the environment says."""
        known = self.credentials
        return boto3.session.Session().client(
            "s3",
            endpoint_url=known.endpoint,
            aws_access_key_id=known.access_key,
            aws_secret_access_key=known.secret_key,
            region_name=known.region,
            config=Config(
                retries={"mode": "standard", "max_attempts": 1}, connect_timeout=2, read_timeout=10
            ),
        )

    def _settings(self) -> Settings:
        path = self.folder / "settings.json"
        try:
            return Settings.model_validate_json(path.read_text())
        except FileNotFoundError:
            raise DataError(f"{self.folder} has no S3 server yet: start it with make s3") from None
        except ValidationError as error:
            raise DataError(f"{path} is damaged: restore it, the data need its keys") from error

    def _configure(self) -> None:
        """Chooses ports and keys, and writes everything that is made of them."""
        ports = ports_for(SERVICES)
        known = Credentials(
            endpoint=f"http://{HOST}:{ports['s3']}",
            access_key="LOCAL" + secrets.token_hex(8).upper(),
            secret_key=secrets.token_urlsafe(30),
            region=REGION,
            bucket=self._bucket,
        )
        owner = {
            "name": "admin",
            "credentials": [{"accessKey": known.access_key, "secretKey": known.secret_key}],
            "actions": ["Admin", "Read", "List", "Tagging", "Write"],
        }
        # Master, volume and filer have ports of their own: there, whoever has no key gets nothing.
        signing = [f'[{name}]\nkey = "{secrets.token_urlsafe(30)}"\n' for name in _SIGNED]
        exports = [
            f"export {name}={shlex.quote(value)}\n" for name, value in known.environment().items()
        ]
        settings = Settings(ports=ports, credentials=known)
        for name, content in {
            "identities.json": json.dumps({"identities": [owner]}, indent=2),
            "security.toml": "\n".join(signing),
            "env": "".join(exports),
            "settings.json": settings.model_dump_json(indent=2),
        }.items():
            write_whole(self.folder / name, content, mode=0o600)

    def _launch(self) -> None:
        ports = self._settings().ports
        check_free(ports)
        data = self.folder / "data"
        data.mkdir(exist_ok=True)
        opener = os.open(self.log_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(opener, "wb") as output:
            self._process = subprocess.Popen(
                [
                    *(_weed(), "-logtostderr=true", "mini", f"-dir={data}"),
                    *(f"-ip={HOST}", f"-ip.bind={HOST}", f"-metricsIp={HOST}"),
                    *(f"-{service}.port={port}" for service, port in ports.items()),
                    f"-s3.config={self.folder / 'identities.json'}",
                    *("-s3.port.iceberg=0", "-s3.port.lance=0", "-webdav=false", "-admin.ui=false"),
                    *("-s3.allowDeleteBucketNotEmpty=false", "-s3.autoCreateBucket=false"),
                    *("-master.telemetry=false", "-volume.preStopSeconds=0"),
                ],
                cwd=self.folder,
                # Nothing of the caller's: weed reads keys, buckets and settings from there.
                env={
                    "HOME": str(self.folder),
                    "PATH": os.defpath,
                    "GOMEMLIMIT": "256MiB",
                    "WEED_MASTER_VOLUME_GROWTH_COPY_1": "1",
                },
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        pid = self._process.pid
        write_whole(self.folder / "pid", f"{pid} {_started(pid)}", mode=0o600)

    def _wait_until_ready(self) -> None:
        """Makes the bucket, versioned, and writes and reads an object.

        A listing succeeds too early, and so does an empty object: no volume is needed for it.
        """
        bucket = self.credentials.bucket
        deadline = time.monotonic() + _WAIT
        with closing(self.client()) as client:
            while True:
                try:
                    _make_bucket(client, bucket)
                    version = client.put_object(Bucket=bucket, Key=".ready", Body=b"ready")
                    ready = {"Bucket": bucket, "Key": ".ready", "VersionId": version["VersionId"]}
                    client.get_object(**ready)["Body"].read()
                    client.delete_object(**ready)
                    return
                except (BotoCoreError, ClientError, KeyError) as error:
                    if self.pid is None:
                        raise StorageError(
                            f"the S3 server ended by itself: {self.log_file} says why"
                        ) from error
                    if time.monotonic() > deadline:
                        raise StorageError(
                            f"the S3 server takes no object after {_WAIT:.0f} s ({error}): "
                            f"{self.log_file} says more"
                        ) from error
                    time.sleep(0.1)

    def _end(self, how: signal.Signals) -> None:
        pid = self.pid
        if pid is not None:
            os.kill(pid, how)
            deadline = time.monotonic() + _WAIT
            while self.pid is not None:
                if time.monotonic() > deadline:
                    raise StorageError(f"the S3 server, process {pid}, does not end: kill it")
                time.sleep(0.02)
        if self._process is not None:
            # One whose number could not be written down is ended too.
            self._process.send_signal(how)
            self._process.wait()
            self._process = None
        (self.folder / "pid").unlink(missing_ok=True)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One start at a time; the other then finds a server that runs."""
        with (self.folder / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


_SIGNED: Final = ("jwt.signing", "jwt.signing.read", "jwt.filer_signing", "jwt.filer_signing.read")


def _weed() -> str:
    """The server's program, from the environment that this process runs in."""
    beside = Path(sys.executable).with_name("weed")
    found = str(beside) if beside.exists() else shutil.which("weed")
    if found is None:
        raise DataError("the S3 server's program, weed, is missing: run make setup")
    return found


def _make_bucket(client: Any, bucket: str) -> None:
    try:
        client.head_bucket(Bucket=bucket)
    except ClientError as error:
        if error.response["Error"]["Code"] != "404":
            raise
        client.create_bucket(Bucket=bucket)
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})


def _started(pid: int) -> str | None:
    """When a process started, in ticks since this boot; None where it is gone or a zombie."""
    try:
        # The second field, the name in brackets, may hold spaces.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else fields[19]
