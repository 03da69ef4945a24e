"""What every process of a job does before anything else, on whichever machine it runs.

Ray starts processes on machines that may join at any time: each gets its keys, its teachers and its
pretrained weights here.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict

from pipeline.files import whole_folder

KEYS_FILE: Final = ".job-keys.json"
"""In a job's working folder: the keys for S3 that whoever submitted it has in their environment.

Ray writes a job's environment variables into its logs and shows them on its dashboard, but not what
lies in the working folder.
"""
NEEDED: Final = "SCRIPT_DISTILL_NEEDED"


class Needed(BaseModel):
    """What has to be on every machine of a job, under the same absolute paths.

    Attributes:
        folder: it gets a model folder for every teacher.
        teachers: by run name, the address in S3 of every file.
        targets: of teachers whose targets are stored, the same of these files.
        files: where to copy files of the job's working folder to, by their path in it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    folder: Path
    teachers: dict[str, dict[str, str]]
    targets: dict[str, dict[str, str]] = {}
    files: dict[Path, Path] = {}

    @property
    def targets_folder(self) -> Path:
        """It gets a folder of stored targets for every teacher; no run has such a name."""
        return self.folder / ".targets"


def prepare() -> None:
    """Makes this process ready: Ray calls it in every one that works for the job.

    Raises:
        DistillError: a teacher cannot be fetched.
    """
    take_keys()
    if told := os.environ.get(NEEDED):
        bring(Needed.model_validate_json(told))


def take_keys() -> None:
    """Puts the keys that came with the job, if some did, into this process's environment."""
    path = Path(KEYS_FILE)
    if path.exists():
        # Ray unpacks it for everybody on the machine to read.
        path.chmod(0o600)
        os.environ.update(json.loads(path.read_text()))


def bring(needed: Needed) -> None:
    """Fetches and copies what this machine does not have yet.

    Raises:
        UsageError: S3 refuses.
        DataError: a teacher is not there, or damaged.
        StorageError: S3 cannot be reached.
    """
    if _all_here(needed):
        return
    # It imports PyTorch, which most of a job's processes have no other use for.
    from pipeline.fetch import files_from_objects, model_from_objects  # noqa: PLC0415

    needed.folder.mkdir(parents=True, exist_ok=True)
    with (needed.folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        for name, objects in needed.teachers.items():
            if not (needed.folder / name).exists():
                model_from_objects(objects, needed.folder / name)
        for name, objects in needed.targets.items():
            if not (needed.targets_folder / name).exists():
                # Whoever reads them compares them with their index, and that with the teacher.
                with whole_folder(needed.targets_folder / name) as part:
                    files_from_objects(objects, part)
        for source, target in needed.files.items():
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                part = target.with_name(f"{target.name}.{os.getpid()}")
                shutil.copyfile(source, part)
                part.replace(target)


def _all_here(needed: Needed) -> bool:
    wanted = [
        *(needed.folder / name for name in needed.teachers),
        *(needed.targets_folder / name for name in needed.targets),
        *needed.files.values(),
    ]
    return all(path.exists() for path in wanted)
