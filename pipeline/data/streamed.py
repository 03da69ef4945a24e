"""Shards straight from S3: through the cache of this machine, each checked before it is used."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import webdataset

from pipeline.data.cache import Cache
from pipeline.data.revision import Revision
from pipeline.data.shards import Sample, Shard, check, unpack
from pipeline.data.stream import Counts, register
from pipeline.errors import DistillError
from pipeline.params import Section

log = logging.getLogger(__name__)

_AT_A_TIME: Final = 8


class Streaming(Section):
    """How shards are streamed: values that travel as JSON.

    Attributes:
        revision: which objects they are.
        cache: the folder of the cache; ``~`` is the home of who reads.
        cache_bytes: its largest size.
        patience: seconds that S3 may give nothing.
    """

    revision: Revision
    cache: str
    cache_bytes: int
    patience: float


class StreamedShards:
    """Reads the shards of a revision from S3, and those it read before from the cache.

    Where the cache cannot be written, shards are streamed without it.

    Attributes:
        counts: what was asked of S3 and of the cache, here and in loader processes.
    """

    def __init__(self, streaming: Streaming) -> None:
        register()
        self.counts = Counts()
        self._streaming = streaming
        self._cache = Cache(Path(streaming.cache).expanduser(), streaming.cache_bytes)
        self._cache_works = streaming.cache_bytes > 0
        self._ahead: deque[Shard] = deque()
        self._fetchers: list[threading.Thread] = []

    def read(self, shard: Shard) -> list[Sample]:
        """All images of a shard, checked against the index before any of them is used.

        Raises:
            DistillError: see :class:`pipeline.data.stream.ObjectStream`; or the object does not
                match the index.
        """
        return unpack(self._content(shard), shard, self._named(shard))

    def prefetch(self, shards: Iterable[Shard]) -> None:
        """Begins to fetch shards into the cache, in this order, and does not wait for them."""
        if not self._cache_works:
            return
        self._ahead.extend(shards)
        self._fetchers = [thread for thread in self._fetchers if thread.is_alive()]
        for _ in range(min(_AT_A_TIME - len(self._fetchers), len(self._ahead))):
            # They end with the process, whatever they wait for.
            thread = threading.Thread(target=self._fetch_ahead, daemon=True)
            self._fetchers.append(thread)
            thread.start()

    def close(self) -> None:
        """Says what was asked of S3 and of the cache."""
        self._ahead.clear()
        log.info(
            "streamed: %(requests)d requests to S3, %(retries)d of them again, %(bytes)d bytes; "
            "%(cached)d shards from the cache, %(uncached)d without it",
            self.counts.all(),
        )

    def _fetch_ahead(self) -> None:
        try:
            while self._cache_works:
                shard = self._ahead.popleft()
                if not self._cache.has(shard.sha256):
                    self._content(shard)
        except IndexError:
            return
        except DistillError:
            # Who needs the shard meets the same error, and raises it.
            self._ahead.clear()

    def _content(self, shard: Shard) -> bytes:
        if not self._cache_works:
            self.counts.add("uncached")
            return self._fetch(shard, self._streaming.patience)
        content = None
        try:
            content = self._cached(shard)
            if content is None:
                with self._cache.fetching(shard.sha256, self._streaming.patience):
                    content = self._cached(shard)
                    if content is None:
                        content = self._fetch(shard, self._streaming.patience)
                        self._cache.put(shard.sha256, content)
        except OSError as error:
            self._cache_works = False
            # Of all threads and processes that meet it, one says so.
            if self.counts.add("uncached") == 1:
                log.warning(
                    "the cache %s cannot be used (%s): shards are streamed without it",
                    *(self._streaming.cache, error),
                )
            content = content or self._fetch(shard, self._streaming.patience)
        return content

    def _cached(self, shard: Shard) -> bytes | None:
        content = self._cache.get(shard.sha256)
        if content is not None:
            self.counts.add("cached")
        return content

    def _fetch(self, shard: Shard, patience: float) -> bytes:
        uri = self._streaming.revision.objects[shard.name]
        with webdataset.gopen(uri, patience=patience, counts=self.counts) as stream:
            content: bytes = stream.read()
        check(content, shard, self._named(shard), "remove it there and push it again, by dvc push")
        return content

    def _named(self, shard: Shard) -> str:
        return f"{self._streaming.revision.objects[shard.name]} ({shard.name})"
