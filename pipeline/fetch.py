"""Models from elsewhere: a folder in a bucket, or a run of a revision of this project.

What is fetched is loaded once before it is kept, so that the cache holds whole models only, each
under a name that is made of its content.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from botocore.exceptions import BotoCoreError, ClientError

from pipeline import s3
from pipeline.data.stream import open_object
from pipeline.errors import DataError, UsageError
from pipeline.files import folder_there, whole_folder
from pipeline.models.folder import ABOUT_FILE, WEIGHTS_FILE, load_model

log = logging.getLogger(__name__)

_FILES: Final = (ABOUT_FILE, WEIGHTS_FILE)


def model_from_bucket(uri: str, cache: Path, patience: float) -> Path:
    """The model folder at ``s3://bucket/prefix``, fetched unless the cache has this version of it.

    Args:
        uri: of the folder.
        cache: the folder that fetched models are kept in.
        patience: seconds that S3 may give nothing.

    Returns:
        A model folder below ``cache``.

    Raises:
        UsageError: it is no address, or S3 refuses.
        DataError: there is no such bucket or model, or the model is damaged.
        StorageError: S3 cannot be reached.
    """
    bucket, prefix = s3.parse(uri)
    about, weights = (f"{prefix}/{name}".removeprefix("/") for name in (ABOUT_FILE, WEIGHTS_FILE))
    with open_object(f"{s3.SCHEME}{bucket}/{about}", patience=patience) as source:
        described = source.read()
    try:
        version = s3.client().head_object(Bucket=bucket, Key=weights)["ETag"]
    except (BotoCoreError, ClientError) as error:
        raise s3.explained(error, f"{s3.SCHEME}{bucket}/{weights}") from error
    path = cache / _name_of(described, version)
    if not folder_there(path):
        with _kept(path, uri) as part:
            (part / ABOUT_FILE).write_bytes(described)
            with (
                open_object(f"{s3.SCHEME}{bucket}/{weights}", patience=patience) as source,
                (part / WEIGHTS_FILE).open("wb") as file,
            ):
                shutil.copyfileobj(source, file)
    return path


def model_from_objects(objects: Mapping[str, str], folder: Path) -> None:
    """Fetches a model folder, whole or not at all; one that is there is replaced.

    Args:
        objects: the address of every file, by its name; model.json and the weights among them.
        folder: the model folder to write.

    Raises:
        UsageError: S3 refuses.
        DataError: an object is not there, or the model is damaged.
        StorageError: S3 cannot be reached.
    """
    with _kept(folder, objects[WEIGHTS_FILE]) as part:
        files_from_objects(objects, part)


def files_from_objects(objects: Mapping[str, str], folder: Path) -> None:
    """Fetches objects into a folder that is there.

    Args:
        objects: the address of every file, by its name.
        folder: where to write them.

    Raises:
        UsageError: S3 refuses.
        DataError: an object is not there, or its name leads elsewhere.
        StorageError: S3 cannot be reached.
    """
    for name, uri in objects.items():
        if Path(name).name != name:
            raise DataError(f"{uri} is to be written to {name!r}, which is no name of a file")
        with open_object(uri) as source, (folder / name).open("wb") as file:
            shutil.copyfileobj(source, file)


def model_of_revision(run: str, rev: str, cache: Path, project: Path = Path()) -> Path:
    """The model of a run as a git revision has it, fetched from DVC's cache or its default remote.

    Args:
        run: for example ``student-ocr``.
        rev: a tag, branch or commit.
        cache: the folder that fetched models are kept in.
        project: the project's top folder, a git repository.

    Returns:
        A model folder below ``cache``.

    Raises:
        UsageError: there is no such revision or run, the model is not in the remote, or S3 refuses.
        DataError: the model is damaged.
        StorageError: S3 cannot be reached.
    """
    # It takes half a second to import, and is needed here only.
    from dvc.api import DVCFileSystem  # noqa: PLC0415

    logging.getLogger("dvc").setLevel(logging.WARNING)
    origin, folder = f"{run} of {rev}", f"models/{run}"
    with _dvc_errors(origin):
        files = DVCFileSystem(str(project), rev=rev)
        config = files.repo.config
        remote = config["core"].get("remote", "")
        url = config["remote"].get(remote, {}).get("url", "none")
    with _dvc_errors(origin, url):
        known = files.ls("models", detail=False) if files.exists("models") else []
        if folder not in known:
            has = ", ".join(sorted(Path(name).name for name in known if "/." not in name))
            raise UsageError(f"revision {rev} has no model of {run}; it has {has or 'none at all'}")
        sums = {name: files.info(f"{folder}/{name}").get("md5") for name in _FILES}
        path = cache / _name_of(*map(str, sums.values()))
        if not folder_there(path):
            with _kept(path, origin) as part:
                for name, wanted in sums.items():
                    files.get_file(f"{folder}/{name}", str(part / name))
                    if _md5(part / name) != wanted:
                        raise DataError(
                            f"{folder}/{name} of {rev} is not what DVC knows it as: it was changed "
                            f"in {url}; remove it there and push it again, by dvc push"
                        )
    return path


@contextmanager
def _kept(path: Path, origin: str) -> Iterator[Path]:
    """A folder to fill; it is put in place if a model can be loaded from it."""
    log.info("fetching %s", origin)
    with whole_folder(path) as part:
        yield part
        try:
            load_model(part)
        except DataError as error:
            raise DataError(f"{origin} is no whole model, push it again: {error}") from error


@contextmanager
def _dvc_errors(origin: str, url: str = "") -> Iterator[None]:
    """What DVC raises, as errors of ours; those of boto3 lie behind DVC's.

    Args:
        origin: what is fetched.
        url: of the remote; empty as long as the revision itself is looked for.
    """
    # As slow to import as DVC's API above.
    from dvc.exceptions import DvcException  # noqa: PLC0415
    from dvc_data.index import DataIndexDirError  # noqa: PLC0415

    try:
        yield
    except (DvcException, DataIndexDirError, OSError, BotoCoreError, ClientError) as error:
        behind: BaseException | None = error
        while behind is not None:
            if isinstance(behind, BotoCoreError | ClientError):
                raise s3.explained(behind, url) from error
            if isinstance(behind, FileNotFoundError) and url:
                raise UsageError(
                    f"{origin} is not in the DVC remote {url} ({behind}): push it there, or choose "
                    "the remote that has it, by dvc remote default --local NAME"
                ) from error
            behind = behind.__cause__ or behind.__context__
        if isinstance(error, OSError):
            raise
        raise UsageError(
            f"DVC finds no {origin}: {error}; git tag lists the revisions, and git fetch --tags "
            "gets more of them"
        ) from error


def _name_of(*parts: str | bytes) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
