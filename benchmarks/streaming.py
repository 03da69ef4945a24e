"""Shards from the local S3 server beside the same shards from disk, and DVC beside bare boto3."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.spread import spread
from benchmarks.variables import variables
from cluster.seaweedfs import Server
from pipeline.data import stream
from pipeline.data.loader import Loader, ViewDataset
from pipeline.data.plan import Planner
from pipeline.data.revision import Revision
from pipeline.data.shards import INDEX_FILE, Index, ShardFolder, ShardSource
from pipeline.data.streamed import StreamedShards, Streaming
from pipeline.params import Params
from pipeline.train.run import SHARDS

CACHE_BYTES = 2**30
AT_A_TIME = 10


def streaming_ratios(params: Params, index: Index, folder: Path, pairs: int) -> dict[str, Any]:
    """Times an epoch of new views from disk, from S3 with an empty cache, and with a full one.

    Every epoch is one of a loader of its own, with its loader process: the first of a training.
    Ratios are of images a second. Then DVC is timed beside boto3, with the same bytes.
    """
    with Server(folder / "s3") as server, variables(server.credentials.environment()):
        _upload(server, "bench", index)
        bucket = server.credentials.bucket
        objects = {shard.name: f"s3://{bucket}/bench/{shard.name}" for shard in index.shards}
        revision = Revision(index=index, objects=objects)
        rates: dict[str, list[float]] = {"disk": [], "cold": [], "warm": []}
        requests: dict[str, list[float]] = {"cold": [], "warm": []}
        _epoch(params, index, ShardFolder(SHARDS))  # the first one imports what all need
        for pair in range(pairs):
            cache = folder / f"cache-{pair}"
            ways = ("disk", "cold", "warm") if pair % 2 == 0 else ("cold", "warm", "disk")
            for way in ways:
                source: ShardSource = ShardFolder(SHARDS)
                if way != "disk":
                    source = StreamedShards(
                        Streaming(
                            revision=revision,
                            cache=str(cache),
                            cache_bytes=CACHE_BYTES,
                            patience=stream.PATIENCE,
                        )
                    )
                rates[way].append(_epoch(params, index, source))
                if isinstance(source, StreamedShards):
                    requests[way].append(source.counts.all()["requests"])
            shutil.rmtree(cache)
        return {
            "cold": spread([s / d for s, d in zip(rates["cold"], rates["disk"], strict=True)]),
            "warm": spread([s / d for s, d in zip(rates["warm"], rates["disk"], strict=True)]),
            "disk_images_per_second": spread(rates["disk"]),
            "requests_cold": spread(requests["cold"]),
            "requests_warm": spread(requests["warm"]),
            **_dvc_ratios(server, index, folder, pairs),
        }


def _epoch(params: Params, index: Index, source: ShardSource) -> float:
    """Images a second of a new loader's first epoch, from its start to its last batch."""
    view = params.view.model_copy(update={"cycle": 0})
    seed, window = params.seed, params.data.shuffle_shards
    planner = Planner(
        tuple(shard.samples for shard in index.of("train")),
        params.training.batch_size,
        seed,
        window,
    )
    began = time.perf_counter()
    loader = Loader(ViewDataset(source, index, "train", view, seed, window), planner, workers=1)
    images = sum(len(batch.keys) for batch in loader.epoch(0))
    return images / (time.perf_counter() - began)


def _dvc_ratios(server: Server, index: Index, folder: Path, pairs: int) -> dict[str, Any]:
    """Seconds of dvc push and dvc pull over those of boto3, which moves as many files at a time.

    DVC's own start is in its seconds.
    """
    project = folder / "project"
    shutil.copytree(SHARDS, project / SHARDS)
    _dvc(project, "init", "-q", "--no-scm")
    _dvc(project, "add", "-q", SHARDS.as_posix())
    found: dict[str, list[float]] = {"push": [], "pull": []}
    for pair in range(pairs):
        bucket = server.credentials.bucket
        _dvc(project, "remote", "add", "-q", "-f", "bench", f"s3://{bucket}/dvc-{pair}")
        push = _seconds(lambda: _dvc(project, "push", "-q", "-r", "bench"))
        upload = _seconds(lambda pair=pair: _upload(server, f"bare-{pair}", index))
        shutil.rmtree(project / ".dvc/cache")
        shutil.rmtree(project / SHARDS)
        pull = _seconds(lambda: _dvc(project, "pull", "-q", "-r", "bench"))
        target = folder / f"bare-{pair}"
        download = _seconds(
            lambda pair=pair, target=target: _download(server, f"bare-{pair}", index, target)
        )
        shutil.rmtree(target)
        found["push"].append(push / upload)
        found["pull"].append(pull / download)
    return {name: spread(values) for name, values in found.items()}


def _files(index: Index) -> list[str]:
    return [INDEX_FILE, *(shard.name for shard in index.shards)]


def _upload(server: Server, prefix: str, index: Index) -> None:
    client, bucket = server.client(), server.credentials.bucket
    with ThreadPoolExecutor(AT_A_TIME) as threads:
        moves = [
            threads.submit(client.upload_file, str(SHARDS / name), bucket, f"{prefix}/{name}")
            for name in _files(index)
        ]
    for move in moves:
        move.result()


def _download(server: Server, prefix: str, index: Index, target: Path) -> None:
    client, bucket = server.client(), server.credentials.bucket
    for name in _files(index):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(AT_A_TIME) as threads:
        moves = [
            threads.submit(client.download_file, bucket, f"{prefix}/{name}", str(target / name))
            for name in _files(index)
        ]
    for move in moves:
        move.result()


def _dvc(project: Path, *arguments: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=project,
        env={**os.environ, "DVC_NO_ANALYTICS": "1"},
        check=True,
    )


def _seconds(work: Any) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
