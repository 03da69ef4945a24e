"""What a job takes along: the code, the parameters, which data are meant, and settings; no data."""

from __future__ import annotations

import json
import os
import shutil
from configparser import ConfigParser
from pathlib import Path
from typing import Final

from dvc.config import Config

from pipeline.errors import UsageError
from pipeline.failure import FAILURE_FILE, STANDARD_ERROR
from pipeline.files import write_whole
from pipeline.jobs.worker import KEYS_FILE
from pipeline.machine import LOCK_FILE
from pipeline.params import PARAMS_FILE, Params

_PACKAGE: Final = Path(__file__).parents[1]
_KEYS: Final = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
_SETTINGS: Final = (
    *("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_DEFAULT_REGION", "AWS_REGION"),
    "AWS_EC2_METADATA_DISABLED",
)
_OF_REMOTE: Final = ("url", "endpointurl", "region")


def pack(folder: Path, params: Params, remote: str, weights: Path | None = None) -> None:
    """Fills a folder with all that a job of this project needs.

    The same content gives the same bytes: Ray then takes what it has from the job before.

    Args:
        folder: an empty one.
        params: what the job is to do.
        remote: the DVC remote that shards come from; its settings go along, but for its keys.
        weights: a file that goes along, under the path that ``params`` names it by.

    Raises:
        UsageError: there is no such remote, or the path of the weights leads out of the project.
    """
    shutil.copytree(
        _PACKAGE,
        folder / _PACKAGE.name,
        ignore=shutil.ignore_patterns("__pycache__", "node_modules"),
    )
    # There is no git on the cluster to look a revision up in, and no need: dvc.lock has its shards.
    here = params.model_copy(update={"data": params.data.model_copy(update={"rev": None})})
    (folder / PARAMS_FILE.name).write_text(here.model_dump_json(indent=2))
    for name in ("dvc.yaml", "dvc.lock", LOCK_FILE):
        if Path(name).exists():
            shutil.copy(name, folder / name)
    if weights is not None:
        if weights.is_absolute() or ".." in weights.parts:
            raise UsageError(f"{weights} does not reach a job: name it by a path in the project")
        (folder / weights).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(weights, folder / weights)
    settings = Config(str(Path(".dvc").absolute()))["remote"].get(remote)
    if settings is None:
        raise UsageError(f"there is no DVC remote {remote} (from DISTILL_STREAM): dvc remote list")
    config = ConfigParser(interpolation=None)
    config[f"'remote \"{remote}\"'"] = {
        key: str(settings[key]) for key in _OF_REMOTE if key in settings
    }
    (folder / ".dvc").mkdir()
    with (folder / ".dvc/config").open("w") as file:
        config.write(file)
    if keys := {name: os.environ[name] for name in _KEYS if name in os.environ}:
        write_whole(folder / KEYS_FILE, json.dumps(keys, sort_keys=True), mode=0o600)


def settings() -> dict[str, str]:
    """The environment of a job: where it computes and where S3 is; no secret is among it."""
    chosen = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(("DISTILL_", "NCCL_")) or name in _SETTINGS
    }
    # By which type of error it failed is told in its log, which comes here.
    return {**chosen, FAILURE_FILE: STANDARD_ERROR}
