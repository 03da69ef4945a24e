"""Trainings on shards from a bucket end as from disk, whatever happens on the way."""

from __future__ import annotations

import hashlib
import json
import random
import re
import resource
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bucket import REMOTE, RUN, object_key, own_copy, train, without_data
from commands import start
from proxy import Fault, Proxy, Request
from tiny import tiny_params

from cluster.seaweedfs import Credentials, Server
from pipeline.data.loader import Loader, ViewDataset
from pipeline.data.plan import Planner
from pipeline.data.revision import locate
from pipeline.data.streamed import StreamedShards, Streaming
from pipeline.errors import DataError, StorageError, UsageError
from pipeline.models.folder import WEIGHTS_FILE

STREAM: dict[str, Any] = {"stream": REMOTE, "cache_gib": 0, "patience": 20}
"""No cache: every shard is asked for whenever it is needed."""
SHARED: dict[str, Any] = {"cache_gib": 1, "loaders": 2}
"""As is the default: loader processes, and threads that read ahead, share a cache."""


@pytest.fixture(scope="module")
def expected(pushed: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The weights of a training from disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(pushed)
        return train(tmp_path_factory.mktemp("disk"), {})


@pytest.fixture
def job(pushed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working folder, with neither data nor git."""
    folder = without_data(pushed, tmp_path / "job")
    monkeypatch.chdir(folder)
    yield folder
    # One that still waits for S3 would ask the next test's.
    for thread in threading.enumerate():
        if "_fetch_ahead" in thread.name:
            thread.join(60)


def test_weights_are_those_of_a_training_from_disk(
    job: Path, tmp_path: Path, proxy: Proxy, expected: bytes
) -> None:
    assert train(tmp_path, STREAM) == expected
    shards = [request for request in proxy.requests[2:] if "/files/md5/" in request.line]
    assert len(shards) == 15, "13 reads of training shards, two of validation shards"


@pytest.mark.parametrize("loaders", [0, 2])
def test_every_object_is_asked_for_once_where_there_is_a_cache(
    job: Path, tmp_path: Path, proxy: Proxy, expected: bytes, loaders: int
) -> None:
    cached = {**STREAM, "cache": str(tmp_path / "cache"), "cache_gib": 1, "loaders": loaders}
    assert train(tmp_path, cached) == expected
    lines = [request.line for request in proxy.requests]
    # The listing, the index, five shards of train and two of validation.
    assert len(set(lines)) == len(lines) == 9
    assert train(tmp_path / "again", cached) == expected
    assert len(proxy.requests) == 11, "the listing and the index"


@pytest.mark.parametrize(("compute", "needed"), [({}, 17), (SHARED, 9)])
def test_errors_of_the_server_are_tried_again_and_nothing_is_lost(
    job: Path,
    tmp_path: Path,
    proxy: Proxy,
    expected: bytes,
    compute: dict[str, Any],
    needed: int,
) -> None:
    dice = random.Random(8)
    faults = [Fault(status=500), Fault(status=503, code="SlowDown")]
    proxy.rule = lambda request: dice.choice(faults) if dice.random() < 0.3 else None
    cache = str(tmp_path / "cache")
    assert train(tmp_path, {**STREAM, "cache": cache, **compute}) == expected
    assert set(proxy.injected) == set(faults)
    assert len(proxy.requests) == needed + proxy.injected.total(), "no more than needed"


def test_an_object_that_is_cut_off_is_read_on_from_there(
    job: Path, tmp_path: Path, proxy: Proxy, expected: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    cut = Fault(cut=20_000)
    with caplog.at_level("INFO", "pipeline"):
        train(tmp_path / "undisturbed", STREAM)
        before = proxy.requests.copy()
        proxy.rule = lambda request: cut if request.number % 2 else None
        assert train(tmp_path, STREAM) == expected
    undisturbed, disturbed = re.findall(r"streamed: .*", caplog.text)
    assert proxy.injected[cut] > 5
    assert len(proxy.requests) == 2 * len(before) + proxy.injected[cut]
    received = re.compile(r"\d+ bytes").search
    assert received(undisturbed)[0] == received(disturbed)[0], "no byte was read twice"  # type: ignore[index]


def test_a_connection_that_crawls_is_given_up_for_another(
    job: Path, tmp_path: Path, proxy: Proxy, expected: bytes
) -> None:
    crawl = Fault(rate=1000)
    proxy.rule = lambda request: crawl if request.number in (5, 6) else None
    began = time.monotonic()
    assert train(tmp_path, {**STREAM, "patience": 4}) == expected
    # A shard has 40 KB, and so would have taken 40 s.
    assert time.monotonic() - began < 20
    assert proxy.injected[crawl] == 2
    assert len(proxy.requests) == 17 + 2


def test_a_server_that_only_crawls_ends_the_run(job: Path, tmp_path: Path, proxy: Proxy) -> None:
    crawl = Fault(rate=1000)
    proxy.rule = lambda request: crawl if request.number > 10 else None
    with pytest.raises(StorageError, match=r"gave nothing for 2 s.*less than 16384 bytes a second"):
        train(tmp_path, {**STREAM, "patience": 2})
    assert proxy.injected[crawl] < 8


def test_a_server_that_is_killed_in_mid_epoch_and_comes_back_is_waited_for(
    job: Path, tmp_path: Path, proxy: Proxy, expected: bytes, s3: Server
) -> None:
    starter = threading.Thread(target=s3.start)

    def kill(request: Request) -> None:
        if request.number == 11:
            s3.kill()
            starter.start()

    proxy.rule = kill
    assert train(tmp_path, {**STREAM, "patience": 60}) == expected
    starter.join()
    assert len(proxy.requests) > 17, "some were asked in vain"


def test_a_server_that_is_gone_for_good_ends_the_run_and_the_checkpoint_stays(
    job: Path, tmp_path: Path, proxy: Proxy, expected: bytes, s3: Server
) -> None:
    def kill(request: Request) -> None:
        if request.number == 14:
            s3.kill()

    proxy.rule = kill
    try:
        with pytest.raises(StorageError, match=r"gave nothing for 2 s, in \d+ attempts.*goes on"):
            train(tmp_path, {**STREAM, "patience": 2})
    finally:
        s3.start()
    (kept,) = (tmp_path / "kept").glob("student-alone-*-here/state.json")
    assert json.loads(kept.read_text())["epoch"] == 2
    asked = len(proxy.requests)
    assert asked < 13 + 40, "waits grow"
    assert train(tmp_path, STREAM) == expected
    assert len(proxy.requests) == asked + 9, "one epoch, validation, listing and index"


def test_a_server_that_is_gone_is_one_line_from_a_loader_process_too(
    job: Path, tmp_path: Path, proxy: Proxy, s3: Server
) -> None:
    def kill(request: Request) -> None:
        if request.number == 5:
            s3.kill()

    proxy.rule = kill
    compute = {**STREAM, **SHARED, "cache": str(tmp_path / "cache"), "patience": 2}
    try:
        with pytest.raises(StorageError) as caught:
            train(tmp_path, compute)
    finally:
        s3.start()
    message = str(caught.value)
    assert message.startswith("s3://")
    assert " gave nothing for 2 s, in " in message
    assert "\n" not in message


def test_shards_are_fetched_before_they_are_needed(
    job: Path, tmp_path: Path, proxy: Proxy, s3_environment: Credentials
) -> None:
    revision = locate(job / "data/shards", None, REMOTE, patience=20)
    settings = Streaming(
        revision=revision, cache=str(tmp_path / "cache"), cache_bytes=2**30, patience=20
    )
    view = tiny_params().view
    dataset = ViewDataset(StreamedShards(settings), revision.index, "train", view, 0, window=2)
    shards = revision.index.of("train")
    planner = Planner(tuple(shard.samples for shard in shards), batch_size=4, seed=0, window=2)
    asked, there = len(proxy.requests), threading.Event()
    proxy.rule = lambda request: there.set() if request.number == asked + 2 else None
    batches = Loader(dataset, planner).epoch(0)
    assert there.wait(20), "nothing was fetched before it was asked for"
    next(batches)
    dataset.source.close()


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("AWS_ACCESS_KEY_ID", "InvalidAccessKeyId"),
        ("AWS_SECRET_ACCESS_KEY", "SignatureDoesNotMatch"),
    ],
)
def test_a_wrong_key_is_refused_at_once(
    job: Path, tmp_path: Path, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, name: str, code: str
) -> None:
    monkeypatch.setenv(name, "WRONG-" + "0" * 20)
    with pytest.raises(UsageError) as caught:
        train(tmp_path, STREAM)
    message = str(caught.value)
    assert f"({code}; bucket script-distill, access key ..." in message
    assert "check that the key" in message
    assert "0" * 6 not in message.replace("...0000 from", "")
    assert len(proxy.requests) <= 2, "no storm"


def from_a_process(folder: Path, monkeypatch: pytest.MonkeyPatch, known: Credentials) -> Path:
    """Takes credentials from a process that AWS's configuration names.

    Returns:
        A file that has a line for each time they were asked for.
    """
    asked, answer = folder / "asked", folder / "answer.json"
    keys = {"AccessKeyId": known.access_key, "SecretAccessKey": known.secret_key}
    answer.write_text(json.dumps({"Version": 1, **keys}))
    script = folder / "credentials.sh"
    script.write_text(f"echo asked >> {asked}\ncat {answer}\n")
    config = folder / "config"
    config.write_text(f"[default]\ncredential_process = sh {script}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    return asked


def test_credentials_that_expire_in_mid_run_are_read_again(
    job: Path,
    tmp_path: Path,
    proxy: Proxy,
    expected: bytes,
    s3_environment: Credentials,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = from_a_process(tmp_path, monkeypatch, s3_environment)
    expired = Fault(status=400, code="ExpiredToken")
    proxy.rule = lambda request: expired if request.number == 9 else None
    assert train(tmp_path, STREAM) == expected
    assert asked.read_text().count("asked") == 2
    assert len(proxy.requests) == 17 + 1


def test_credentials_that_stay_expired_end_the_run_and_the_checkpoint_stays(
    job: Path,
    tmp_path: Path,
    proxy: Proxy,
    s3_environment: Credentials,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from_a_process(tmp_path, monkeypatch, s3_environment)
    expired = Fault(status=400, code="ExpiredToken")
    proxy.rule = lambda request: expired if request.number >= 14 else None
    with pytest.raises(UsageError, match=r"expired \(ExpiredToken; access key .*: renew them"):
        train(tmp_path, STREAM)
    assert proxy.injected[expired] == 2, "asked once more with what was read again"
    assert list((tmp_path / "kept").glob("*/state.json"))


def test_what_is_not_in_the_bucket_is_named(
    pushed: Path, tmp_path: Path, proxy: Proxy, s3: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(own_copy(pushed, tmp_path / "job", s3, "lacking"))
    key = object_key(pushed, "lacking", "train/train-000003.tar")
    bucket = s3.credentials.bucket
    s3.client().delete_object(Bucket=bucket, Key=key)
    with pytest.raises(DataError, match=f"there is no s3://{bucket}/{key}"):
        train(tmp_path, STREAM)
    config = Path(".dvc/config")
    config.write_text(config.read_text().replace(bucket, "no-such-bucket"))
    asked = len(proxy.requests)
    with pytest.raises(DataError, match="there is no bucket no-such-bucket at http://127"):
        train(tmp_path, STREAM)
    assert len(proxy.requests) == asked + 1


@pytest.mark.parametrize("cache_gib", [0, 1])
def test_an_object_that_was_changed_in_the_bucket_is_refused_by_name(
    pushed: Path,
    tmp_path: Path,
    proxy: Proxy,
    s3: Server,
    monkeypatch: pytest.MonkeyPatch,
    cache_gib: int,
) -> None:
    prefix, name = f"changed-{cache_gib}", "train/train-000003.tar"
    monkeypatch.chdir(own_copy(pushed, tmp_path / "job", s3, prefix))
    content = bytearray((pushed / "data/shards" / name).read_bytes())
    content[len(content) // 2] ^= 1
    key = object_key(pushed, prefix, name)
    s3.client().put_object(Bucket=s3.credentials.bucket, Key=key, Body=bytes(content))
    cache = tmp_path / "cache"
    with pytest.raises(DataError, match=rf"{key} \({name}\) does not match its checksum.*dvc push"):
        train(tmp_path, {**STREAM, "cache_gib": cache_gib, "cache": str(cache)})
    changed = hashlib.sha256(content).hexdigest()
    there = [path for path in cache.glob("*") if path.is_file()]
    assert changed not in {hashlib.sha256(path.read_bytes()).hexdigest() for path in there}
    assert bool(there) == bool(cache_gib)
    assert all(path.name == hashlib.sha256(path.read_bytes()).hexdigest() for path in there)


def test_a_listing_that_was_changed_in_the_bucket_is_refused(
    pushed: Path, tmp_path: Path, proxy: Proxy, s3: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(own_copy(pushed, tmp_path / "job", s3, "relisted"))
    found = s3.client().list_objects_v2(Bucket=s3.credentials.bucket, Prefix="relisted/")
    (key,) = [one["Key"] for one in found["Contents"] if one["Key"].endswith(".dir")]
    s3.client().put_object(Bucket=s3.credentials.bucket, Key=key, Body=b"[]")
    with pytest.raises(DataError, match=rf"{key} does not match the checksum it is named by"):
        train(tmp_path, STREAM)


def test_a_cache_that_cannot_be_written_is_done_without(
    job: Path,
    tmp_path: Path,
    proxy: Proxy,
    expected: bytes,
    caplog: pytest.LogCaptureFixture,
) -> None:
    cached = {**STREAM, "cache": str(tmp_path / "cache"), "cache_gib": 1}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(request: Request) -> None:
        # Checkpoints are smaller than shards: what the kernel refuses is the cache's files.
        if request.number == 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (38_000, hard))

    proxy.rule = limit
    with caplog.at_level("INFO", "pipeline"):
        try:
            assert train(tmp_path, cached) == expected
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caplog.text.count("cannot be used ([Errno 27] File too large)") == 1
    assert "; 0 shards from the cache, 1" in caplog.text
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["locks"]


def test_two_runs_at_once_share_a_cache(
    job: Path, tmp_path: Path, proxy: Proxy, expected: bytes, pushed: Path
) -> None:
    settings = {**STREAM, "cache": tmp_path / "cache", "cache_gib": 1, "loaders": 1}
    projects = [job, without_data(pushed, tmp_path / "other")]
    runs = [start(project, "train", RUN, **settings) for project in projects]
    for project, process in zip(projects, runs, strict=True):
        assert process.wait(timeout=120) == 0, (project / "out.txt").read_text()
        assert (project / "models" / RUN / WEIGHTS_FILE).read_bytes() == expected
    lines = Counter(request.line for request in proxy.requests)
    assert sorted(lines.values()) == [*(7 * [1]), 2, 2], "only listing and index are asked twice"
