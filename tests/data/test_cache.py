"""The cache of streamed shards: bounded, shared, whole files only."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from commands import ROOT

from pipeline.data.cache import Cache

WRITER = """
import hashlib, sys
from pathlib import Path
from pipeline.data.cache import Cache
cache = Cache(Path(sys.argv[1]), 10**8)
for number in range(10**6):
    content = number.to_bytes(4, "big") * 250_000
    cache.put(hashlib.sha256(content).hexdigest(), content)
    print(number, flush=True)
"""


def named(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def put(cache: Cache, content: bytes) -> str:
    cache.put(named(content), content)
    return named(content)


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.is_file()}


def test_what_was_put_is_there_for_everyone(tmp_path: Path) -> None:
    name = put(Cache(tmp_path, 100), b"content")
    other = Cache(tmp_path, 100)
    assert other.has(name)
    assert other.get(name) == b"content"
    assert other.get(named(b"another")) is None
    assert not other.has(named(b"another"))


def test_the_unused_for_longest_go_and_the_limit_holds(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 30)
    names = [put(cache, bytes([number]) * 10) for number in range(3)]
    for age, name in enumerate(names):
        os.utime(tmp_path / name, (age, age))
    cache.get(names[0])
    fourth = put(cache, b"4" * 15)
    assert files(tmp_path) == {names[0], fourth}, "the second and the third were not used since"
    put(cache, b"5" * 31)
    assert files(tmp_path) == {names[0], fourth}, "what is larger than the cache is not kept"


def test_a_damaged_file_is_removed_and_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = Cache(tmp_path, 100)
    name = put(cache, b"content")
    (tmp_path / name).write_bytes(b"contenT")
    assert cache.get(name) is None
    assert not cache.has(name)
    assert "damaged" in caplog.text


def test_a_writer_that_is_killed_leaves_nothing_that_a_reader_takes(tmp_path: Path) -> None:
    for kills in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
        ) as process:
            assert process.stdout is not None
            for _ in range(3 + kills):
                process.stdout.readline()
            process.send_signal(signal.SIGKILL)
        for name in files(tmp_path) - {".part"}:
            assert named((tmp_path / name).read_bytes()) == name
    put(Cache(tmp_path, 10**8), b"content")
    assert ".part" not in files(tmp_path), "what a killed writer left is gone with the next"


def test_one_at_a_time_fetches_and_a_fetcher_that_hangs_is_not_waited_for_for_ever(
    tmp_path: Path,
) -> None:
    cache, order = Cache(tmp_path, 100), []
    fetching, done = threading.Event(), threading.Event()

    def fetch() -> None:
        with cache.fetching(named(b"a"), 60):
            fetching.set()
            done.wait()
            order.append("first")

    thread = threading.Thread(target=fetch)
    thread.start()
    fetching.wait()
    began = time.monotonic()
    with cache.fetching(named(b"a"), 0.1):
        assert time.monotonic() - began >= 0.1
    with cache.fetching(named(b"b"), 60):
        assert time.monotonic() - began < 30, "another content is not waited for"
    done.set()
    with cache.fetching(named(b"a"), 60):
        order.append("second")
    thread.join()
    assert order == ["first", "second"]
