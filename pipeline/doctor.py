"""What this machine and this project have, what they lack, and what to do about it.

A check fails where something would go wrong. What the pipeline makes by itself, or can do without,
is no failure where it is missing; the advice says how to get it.
"""

from __future__ import annotations

import configparser
import os
import re
import shutil
from pathlib import Path
from typing import get_args

import timm
import torch
from botocore.exceptions import BotoCoreError, ClientError

from pipeline import machine, s3, scripts
from pipeline.data import packages
from pipeline.data.shards import read_index, read_shard
from pipeline.errors import DistillError
from pipeline.machine import Check
from pipeline.models.ocr import WEIGHTS, weights_file
from pipeline.params import Architecture, Distillation, Ocr, Params, Timm, Training
from pipeline.runs import all_runs


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
        *machine.examine(root),
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


def _cpu_precision() -> Check:
    found = machine.precision(torch.device("cpu"))
    return Check(name="cpu precision", ok=True, detail=f"precision auto computes in {found}")


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
        advice="" if found else machine.INSTALL,
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
