"""From word images to shards: read, audit, refuse or build; or those of an older revision."""

from __future__ import annotations

import logging
from pathlib import Path

from pipeline.data import shards
from pipeline.data.audit import Audit, audit, usable
from pipeline.data.source import read_source
from pipeline.errors import DataError, UsageError
from pipeline.files import whole_folder, write_whole
from pipeline.params import Params
from pipeline.progress import Progress

log = logging.getLogger(__name__)

AUDIT_FILE = Path("reports/audit.json")
SHARDS = "data/shards"


def prepare(
    params: Params, folder: Path, audit_file: Path = AUDIT_FILE
) -> tuple[Audit, shards.Index]:
    """Builds the shards of the source that params.yaml names, and keeps the audit of it.

    Where ``data.rev`` names a revision, its shards and its audit are taken from DVC instead.

    Raises:
        UsageError: there is no such revision.
        DataError: the source cannot be read, or the audit found what would falsify a result.
    """
    if params.data.rev is not None:
        return _restore(params.data.rev, folder, audit_file)
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


def _restore(rev: str, folder: Path, audit_file: Path) -> tuple[Audit, shards.Index]:
    # DVC takes half a second to import, and is needed for an older revision only.
    from dvc.api import DVCFileSystem  # noqa: PLC0415
    from dvc.exceptions import DvcException  # noqa: PLC0415

    try:
        there = DVCFileSystem(rev=rev)
        audited = there.read_bytes(AUDIT_FILE.as_posix())
        index = shards.parse_index(there.read_bytes(f"{SHARDS}/{shards.INDEX_FILE}"), rev)
        with whole_folder(folder) as part:
            for shard in index.shards:
                content = there.read_bytes(f"{SHARDS}/{shard.name}")
                shards.check(content, shard, f"{shard.name} of {rev}", "push that revision again")
                write_whole(part / shard.name, content)
            write_whole(part / shards.INDEX_FILE, index.model_dump_json(indent=1) + "\n")
    except DvcException as error:
        raise UsageError(f"data.rev {rev} cannot be had from DVC: {error}; see git tag") from error
    except FileNotFoundError as error:
        raise DataError(
            f"data.rev {rev} is neither in DVC's cache nor in its default remote ({error}): run "
            "dvc fetch --all-tags with the remote that has it"
        ) from error
    write_whole(audit_file, audited)
    return Audit.model_validate_json(audited), index
