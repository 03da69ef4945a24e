"""A Ray Train job with shards and checkpoints in S3: killed on one machine, ended on another."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from bucket import REMOTE, RUN, params, train, without_data
from commands import kill_training, run, start, wait_until

from cluster.seaweedfs import Credentials, Server
from pipeline.models.folder import WEIGHTS_FILE

pytestmark = pytest.mark.slow

# Long enough that a fast machine does not end it between a look at its checkpoints and the kill.
SETTINGS = params(training={"epochs": 12, "batch_size": 8, "lr": 0.01, "precision": "fp32"})
PREFIX = "checkpoints"


def keys(server: Server) -> list[str]:
    listed = server.client().list_objects_v2(Bucket=server.credentials.bucket, Prefix=PREFIX)
    return [found["Key"] for found in listed.get("Contents", [])]


def known(server: Server) -> list[str]:
    """The checkpoints that the job knows of: its controller hears of them after they are kept."""
    snapshots = [key for key in keys(server) if key.endswith("checkpoint_manager_snapshot.json")]
    try:
        found = [
            server.client().get_object(Bucket=server.credentials.bucket, Key=key)["Body"].read()
            for key in snapshots
        ]
    except ClientError:
        return []
    return [
        name for text in found for name in re.findall(r"checkpoint_\d\d[\d_:.-]+", text.decode())
    ]


def test_a_job_that_is_killed_goes_on_elsewhere_from_its_checkpoint_in_s3(
    pushed: Path,
    tmp_path: Path,
    s3: Server,
    s3_environment: Credentials,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        patch.chdir(pushed)
        expected = train(tmp_path / "undisturbed", {}, SETTINGS)
    machines = [without_data(pushed, tmp_path / name) for name in ("one", "other")]
    for machine in machines:
        (machine / "params.yaml").write_text(json.dumps(SETTINGS.model_dump(mode="json")))
    settings: dict[str, Any] = {
        "workers": 1,
        "checkpoint_steps": 2,
        "stream": REMOTE,
        "storage": f"s3://{s3.credentials.bucket}/{PREFIX}",
    }
    process = start(machines[0], "train", RUN, **settings, cache=tmp_path / "cache-one")
    seen: set[str] = set()

    def several() -> bool:
        seen.update(known(s3))
        return len(seen) >= 6

    try:
        wait_until(several, process)
    finally:
        kill_training(process)
    folders = {found[0] for key in keys(s3) if (found := re.search(r"checkpoint_2[^/]+", key))}
    assert folders
    # Two are kept, and one may have been about to be removed; those not listed yet do not count.
    assert len(folders & seen) <= 3, "old ones are removed"

    again = run(machines[1], "train", RUN, **settings, cache=tmp_path / "cache-other")
    assert again.returncode == 0, again.stderr
    said = again.stdout + again.stderr
    assert "goes on from epoch" in said
    assert re.search(r"streamed: \d+ requests to S3, 0 of them again", said)
    assert (machines[1] / "models" / RUN / WEIGHTS_FILE).read_bytes() == expected
    assert [key for key in keys(s3) if RUN in key] == [], "they are needed no more"


@pytest.mark.long
def test_a_job_goes_on_when_its_storage_comes_back(
    pushed: Path,
    tmp_path: Path,
    s3: Server,
    s3_environment: Credentials,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        patch.chdir(pushed)
        expected = train(tmp_path / "undisturbed", {}, SETTINGS)
    machine = without_data(pushed, tmp_path / "one")
    (machine / "params.yaml").write_text(json.dumps(SETTINGS.model_dump(mode="json")))
    storage = f"s3://{s3.credentials.bucket}/{PREFIX}"
    process = start(
        machine, "train", RUN, workers=1, checkpoint_steps=2, stream=REMOTE, storage=storage,
        cache=tmp_path / "cache",
    )  # fmt: skip
    try:
        wait_until(lambda: len(known(s3)) > 0, process)
        s3.kill()
        wait_until(lambda: "it is started again" in (machine / "out.txt").read_text(), process)
        s3.start()
        assert process.wait(120) == 0, (machine / "out.txt").read_text()
    finally:
        s3.start()
        process.kill()
        process.wait()
    assert (machine / "models" / RUN / WEIGHTS_FILE).read_bytes() == expected
