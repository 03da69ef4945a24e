"""What this machine and this project have, what they lack, and what to do about it.

A check fails where something would go wrong. What the pipeline makes by itself, or can do without,
is no failure where it is missing; the advice says how to get it.
"""

from __future__ import annotations

import configparser
import os
import re
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final, get_args

import timm
import torch
from botocore.exceptions import BotoCoreError, ClientError
from packaging.requirements import InvalidRequirement, Requirement
from pydantic import BaseModel, ConfigDict

from pipeline import s3, scripts
from pipeline.compute import cores
from pipeline.data import packages
from pipeline.data.shards import read_index, read_shard
from pipeline.errors import DistillError
from pipeline.models.ocr import WEIGHTS, weights_file
from pipeline.params import Architecture, Distillation, Ocr, Params, Timm, Training
from pipeline.runs import all_runs
from pipeline.train.device import autocast_dtype

LOCK_FILE: Final = "requirements.lock"
_INSTALL = f"pip install --no-deps -r {LOCK_FILE}"
_GIB = 2**30
_NAMED = 5


class Check(BaseModel):
    """One thing that was looked at.

    Attributes:
        ok: whether everything can go on as it is.
        detail: what was found.
        advice: what to do; empty where nothing needs doing.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    ok: bool
    detail: str
    advice: str = ""


def diagnose(
    params: Params, *, root: Path = Path(), shards: Path = Path("data/shards")
) -> list[Check]:
    """Looks at the machine, the packages and the project; nothing is changed.

    Args:
        params: what the project is to do.
        root: the project's top folder.
        shards: the folder of shards, below it.
    """
    return [
        _python(),
        _packages(root / LOCK_FILE),
        *_machine(root),
        _gpu(),
        _cpu_precision(),
        _fonts(params),
        _ocr(params),
        _networks(params),
        _data(params, root),
        _shards(root / shards),
        _ray(),
        _remote(root / ".dvc"),
        _s3(),
        _browser(),
    ]


def available(params: Params) -> dict[str, list[str]]:
    """The values that params.yaml may use, and the runs that it asks for."""
    return {
        "architectures": [
            str(value)
            for kind in get_args(get_args(Architecture)[0])
            for value in get_args(kind.model_fields["architecture"].annotation)
        ],
        "losses": [*get_args(Distillation.model_fields["loss"].annotation)],
        "optimizers": [*get_args(Training.model_fields["optimizer"].annotation)],
        "tasks": [*scripts.TASKS],
        "scripts": [*scripts.NAMES],
        "runs": [run.name for run in all_runs(params)],
    }


def _python() -> Check:
    found = ".".join(str(part) for part in sys.version_info[:3])
    ok = sys.version_info[:2] == (3, 11)
    return Check(
        name="python",
        ok=ok,
        detail=found,
        advice="" if ok else "make the virtual environment with Python 3.11",
    )


def _packages(lock: Path) -> Check:
    name = "packages"
    if not lock.exists():
        return Check(
            name=name, ok=False, detail=f"{lock} is missing", advice="restore it: git checkout"
        )
    wanted = [*_pins(lock.read_text())]
    differ = [
        f"{package} {found or 'missing'}, not {pin}"
        for package, pin in wanted
        if (found := _installed(package)) != pin
    ]
    if differ:
        more = [f"and {len(differ) - _NAMED} more"] * (len(differ) > _NAMED)
        detail = "; ".join([*differ[:_NAMED], *more])
        return Check(name=name, ok=False, detail=detail, advice=_INSTALL)
    return Check(name=name, ok=True, detail=f"all {len(wanted)} as in {LOCK_FILE}")


def _pins(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        try:
            pin = Requirement(line.split(" #")[0].split("--hash")[0].rstrip(" \\"))
        except InvalidRequirement:
            continue  # a comment, an option, a checksum
        if pin.marker is None or pin.marker.evaluate():
            yield pin.name, str(pin.specifier).removeprefix("==")


def _installed(package: str) -> str | None:
    # What follows the plus is the build, for example the CUDA version: a matter of the machine.
    try:
        return version(package).split("+")[0]
    except PackageNotFoundError:
        return None


def _machine(root: Path) -> Iterator[Check]:
    count = cores()
    yield Check(name="cores", ok=True, detail=f"{count} for this process")
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.exists() and (text := limit.read_text().strip()) != "max":
        memory = min(memory, int(text))
    yield _room("memory", memory, 4, "close other programs, or use a larger machine")
    yield _room("disk", shutil.disk_usage(root).free, 5, "make room where the project lies")
    shared = Path("/dev/shm")  # noqa: S108 - no file is made there
    if shared.exists():
        advice = "loaders and Ray need it: in a container, start it with --shm-size=2g"
        yield _room("shared memory", shutil.disk_usage(shared).free, 1, advice)


def _room(name: str, size: int, least: int, advice: str) -> Check:
    ok = size >= least * _GIB
    detail = f"{size / _GIB:.1f} GiB" + ("" if ok else f", less than {least}")
    return Check(name=name, ok=ok, detail=detail, advice="" if ok else advice)


def _gpu() -> Check:
    if not torch.cuda.is_available():
        return Check(name="gpu", ok=True, detail="none; models are trained on the CPU")
    count, device = torch.cuda.device_count(), torch.device("cuda")
    kinds = ", ".join(sorted({torch.cuda.get_device_name(place) for place in range(count)}))
    return Check(
        name="gpu",
        ok=True,
        detail=f"{count} x {kinds}; precision auto computes in {_precision(device)}",
    )


def _cpu_precision() -> Check:
    found = _precision(torch.device("cpu"))
    return Check(name="cpu precision", ok=True, detail=f"precision auto computes in {found}")


def _precision(device: torch.device) -> str:
    names = {torch.bfloat16: "bf16", torch.float16: "fp16", None: "fp32"}
    return names[autocast_dtype("auto", device)]


def _fonts(params: Params) -> Check:
    try:
        packages.check_installed()
    except DistillError as error:
        needed = params.data.source == "generated"
        return Check(name="fonts", ok=not needed, detail=str(error), advice=packages.INSTALL)
    return Check(name="fonts", ok=True, detail="all families that words are generated with")


def _ocr(params: Params) -> Check:
    needed = any(isinstance(model.network, Ocr) for model in params.models.values())
    found = weights_file() is not None
    return Check(
        name="ocr weights",
        ok=found or not needed,
        detail=f"{WEIGHTS} of rapidocr" + ("" if found else " is missing"),
        advice="" if found else _INSTALL,
    )


def _networks(params: Params) -> Check:
    rows = {
        name: model.network
        for name, model in params.models.items()
        if isinstance(model.network, Timm)
    }
    faults = [
        f"models.{name}.network.name: timm has no {row.name}"
        for name, row in rows.items()
        if not timm.is_model(row.name)
    ]
    faults += [
        f"models.{name}.network.weights: {row.weights} is missing"
        for name, row in rows.items()
        if row.weights is not None and not row.weights.exists()
    ]
    known = f"{len(timm.list_models())} networks; params.yaml names {len(rows)} of them"
    return Check(
        name="timm",
        ok=not faults,
        detail="; ".join(faults) or known,
        advice="mend params.yaml; timm.list_models() has the names" if faults else "",
    )


def _data(params: Params, root: Path) -> Check:
    path, source = params.data.root, params.data.source
    if (root / path).exists():
        return Check(name="data", ok=True, detail=f"{path} ({source})")
    made = source == "generated"
    advice = "python -m pipeline generate" if made else "put CVSI-2015 there, or mend data.root"
    missing = "is not made yet" if made else "is missing"
    return Check(name="data", ok=made, detail=f"{path} {missing}", advice=advice)


def _shards(folder: Path) -> Check:
    name = "shards"
    if not folder.exists():
        return Check(name=name, ok=True, detail="not made yet", advice="python -m pipeline shards")
    try:
        index = read_index(folder)
        for shard in index.shards:
            read_shard(folder, shard)
    except DistillError as error:
        return Check(name=name, ok=False, detail=str(error), advice="python -m pipeline shards")
    images = sum(shard.samples for shard in index.shards)
    detail = f"{images:,} images in {len(index.shards)} shards, version {index.version[:12]}"
    return Check(name=name, ok=True, detail=f"{detail}; all checksums match")


def _ray() -> Check:
    address = os.environ.get("RAY_ADDRESS")
    detail = address or "RAY_ADDRESS is not set: training runs on this machine"
    return Check(name="ray", ok=True, detail=detail)


def _remote(folder: Path) -> Check:
    config = configparser.ConfigParser(interpolation=None)
    try:
        config.read([folder / "config", folder / "config.local"])
    except configparser.Error as error:
        return Check(name="dvc remote", ok=False, detail=str(error), advice="mend .dvc/config")
    # DVC writes a remote's section as ['remote "name"'], quotes and all.
    urls = {part.strip("'"): config[part].get("url") for part in config.sections()}
    remote = config.get("core", "remote", fallback=None)
    if remote is None or (url := urls.get(f'remote "{remote}"')) is None:
        advice = "dvc remote add --default NAME URL"
        detail = "none: results are kept on this machine only"
        return Check(name="dvc remote", ok=True, detail=detail, advice=advice)
    # An address may hold a password, and what a doctor says is passed on.
    shown = re.sub(r"//[^/@]*@", "//", url)
    return Check(name="dvc remote", ok=True, detail=f"{remote}: {shown}")


def _s3() -> Check:
    name, bucket = "s3", os.environ.get("S3_BUCKET")
    if not bucket:
        return Check(name=name, ok=True, detail="S3_BUCKET is not set: nothing is kept in S3")
    try:
        s3.client(attempts=1).list_objects_v2(Bucket=bucket, MaxKeys=1)
    except (BotoCoreError, ClientError) as error:
        detail, _, advice = str(s3.explained(error, s3.SCHEME + bucket)).rpartition(": ")
        return Check(name=name, ok=False, detail=detail, advice=advice)
    return Check(name=name, ok=True, detail=f"bucket {bucket} at {s3.endpoint()} answers")


def _browser() -> Check:
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    detail = found or "not installed; only the test of the report's page wants it"
    return Check(name="chromium", ok=True, detail=detail)
