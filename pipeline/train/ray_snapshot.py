"""Ray Train's list of a job's checkpoints, mended where a kill left it half-written."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from ray.train.v2._internal.constants import CHECKPOINT_MANAGER_SNAPSHOT_FILENAME
from ray.train.v2._internal.execution.checkpoint.checkpoint_manager import (
    _CheckpointManagerState,
    _TrainingResultState,
)

from pipeline.errors import DataError
from pipeline.files import write_whole
from pipeline.train.checkpoint import Checkpoint

log = logging.getLogger(__name__)


def mend_snapshot(storage: str, name: str) -> None:
    """Lets a job whose list is damaged go on from its last whole checkpoint.

    Ray overwrites the list in place, and a job whose list cannot be read never starts again. S3
    replaces objects whole, so only a folder is looked at.

    Args:
        storage: where Ray keeps its jobs.
        name: of the job; one that is not there is none to mend.
    """
    snapshot = Path(storage, name, CHECKPOINT_MANAGER_SNAPSHOT_FILENAME)
    if "://" in storage or not snapshot.exists() or _is_json(snapshot):
        return
    newest_first = sorted(snapshot.parent.glob("checkpoint_*/"), reverse=True)
    whole = next(filter(_is_whole, newest_first), None)
    if whole is None:
        log.warning("%s is damaged, without a whole checkpoint: %s begins anew", snapshot, name)
        snapshot.unlink()
        return
    log.warning("%s is damaged: %s goes on from %s", snapshot, name, whole.name)
    last = _TrainingResultState(checkpoint_dir_name=whole.name, metrics={})
    state = _CheckpointManagerState(
        checkpoint_results=[last],
        checkpoint_report_indices=[0],
        latest_checkpoint_result=last,
        pending_training_results=[],
        pending_validation_specs=[],
        current_report_index=1,
        validated_checkpoint_dir_names=[],
        timed_out_validation_checkpoint_dir_names=[],
        failed_validation_checkpoint_dir_names=[],
    )
    write_whole(snapshot, state.json())


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_text())
    except ValueError:
        return False
    return True


def _is_whole(folder: Path) -> bool:
    try:
        Checkpoint.load(folder)
    except DataError:
        return False
    return True
