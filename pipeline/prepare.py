"""From word images to shards: read, audit, refuse or build."""

from __future__ import annotations

import logging
from pathlib import Path

from pipeline.data import shards
from pipeline.data.audit import Audit, audit, usable
from pipeline.data.source import read_source
from pipeline.files import write_whole
from pipeline.params import Params
from pipeline.progress import Progress

log = logging.getLogger(__name__)

AUDIT_FILE = Path("reports/audit.json")


def prepare(
    params: Params, folder: Path, audit_file: Path = AUDIT_FILE
) -> tuple[Audit, shards.Index]:
    """Builds the shards of the source that params.yaml names, and keeps the audit of it.

    Raises:
        DataError: the source cannot be read, or the audit found what would falsify a result.
    """
    source = read_source(params.data)
    found = audit(source, params.data)
    write_whole(audit_file, found.model_dump_json(indent=1) + "\n")
    for line in found.lines():
        log.warning("audit: %s", line)
    found.check(params.data)
    index = shards.build(
        usable(source, found),
        folder,
        source=params.data.source,
        scripts=params.data.classes,
        shard_images=params.data.shard_images,
        progress=Progress("shards", "images"),
    )
    return found, index
