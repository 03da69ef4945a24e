"""What happens to a training on three hosts when something dies: one fault after another.

As a command, from the project's top folder and as root, it writes the table of docs/faults.md:
``PYTHONPATH=.:tests python -m faults docs/faults.md``.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Final

from bucket import params, without_data
from clustered import ASSISTANT, STUDENT, TEACHER, make_project, settings_of_jobs, weights
from commands import run, start, wait_until
from rig import Rig, kill

from cluster.seaweedfs import Server

STAGES: Final = (TEACHER, ASSISTANT, STUDENT)
WORKERS: Final = 2
EPOCHS: Final = 20
LATEST: Final = 14.0
"""A fault comes before this epoch: the log that tells of epochs is seconds behind."""
CUT_SECONDS: Final = 60.0
KINDS: Final = {
    "worker": "kill -9 of a worker",
    "raylet": "kill -9 of a raylet",
    "driver": "kill -9 of the job's driver on the head",
    "submitter": "kill -9 of the command that follows the job",
    "cut": f"a host cut off for {CUT_SECONDS:.0f} s",
    "lost": "a host cut off for good",
    "joins": "a host that joins",
}
_RERUNS: Final = 4
_WAIT: Final = 600.0
SETTINGS: Final = params(
    training={"epochs": EPOCHS, "batch_size": 4, "lr": 0.01, "precision": "fp32"}
).model_dump(mode="json")


@dataclass(frozen=True)
class Row:
    """What came of one fault.

    Attributes:
        kind: a key of :data:`KINDS`.
        stage: during which training.
        at: epochs after the workers had begun.
        reruns: how often the same command was run again.
        longer: seconds that all took beyond an undisturbed run.
        weights: ``equal`` where they are the undisturbed run's, bit for bit; otherwise
            ``different``, or ``none`` where the run did not complete.
    """

    kind: str
    stage: str
    at: float
    reruns: int
    longer: float
    weights: str


class Campaign:
    """Faults on one rig.

    Args:
        rig: of three hosts.
        project: whose shards were pushed; it gets the models of undisturbed runs.
        settings: of its jobs.
        folder: for checkouts; what a faulty run said is in its ``said.txt``.
    """

    def __init__(self, rig: Rig, project: Path, settings: dict[str, Any], folder: Path) -> None:
        self._rig, self._project, self._folder = rig, project, folder
        self._settings = {**settings, "workers": WORKERS}
        self._seconds: dict[str, float] = {}
        self._epoch: dict[str, float] = {}
        self._count = 0

    def undisturbed(self, stage: str) -> float:
        """Trains a stage without a fault, for its weights.

        Returns:
            The seconds that it took.
        """
        checkout = self._checkout(stage)
        began = time.monotonic()
        process = start(checkout, "train", stage, **self._settings)
        working = self._reached(checkout, 0, process)
        trained = self._reached(checkout, EPOCHS, process)
        assert process.wait(timeout=_WAIT) == 0, (checkout / "out.txt").read_text()
        self._seconds[stage] = time.monotonic() - began
        self._epoch[stage] = (trained - working) / EPOCHS
        target = self._project / "models" / stage
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(checkout / "models" / stage, target)
        return self._seconds[stage]

    def fault(self, kind: str, stage: str, at: float) -> Row:
        """Trains a stage with a fault.

        Args:
            kind: a key of :data:`KINDS`.
            stage: trained undisturbed before.
            at: epochs after the workers have begun, when the fault comes.
        """
        if kind == "joins":
            self._rig.end(3)
            self._rig.wait_for_all()
        checkout = self._checkout(f"{kind}-{stage}")
        began = time.monotonic()
        process = start(checkout, "train", stage, **self._settings)
        try:
            self._reached(checkout, int(at), process)
            time.sleep(at % 1 * self._epoch[stage])
            host = self._hit(kind, process)
            code = self._end(process, host if kind == "cut" else None)
        finally:
            process.kill()
            process.wait()
        said, reruns = (checkout / "out.txt").read_text(), 0
        while code and reruns < _RERUNS:
            reruns += 1
            again = run(checkout, "train", stage, **self._settings)
            code, said = again.returncode, f"{said}\n--- again ---\n{again.stderr}"
        longer = time.monotonic() - began - self._seconds[stage]
        (checkout / "said.txt").write_text(said)
        self._restore(host)
        came = "none"
        if code == 0:
            same = weights(checkout, stage) == weights(self._project, stage)
            came = "equal" if same else "different"
        return Row(kind, stage, at, reruns, longer, came)

    def _end(self, process: subprocess.Popen[bytes], cut: int | None) -> int:
        """Waits for a command's end; a host that is cut off comes back meanwhile.

        Returns:
            Its exit code.
        """
        began = time.monotonic()
        while process.poll() is None and (spent := time.monotonic() - began) < _WAIT:
            if cut and spent > CUT_SECONDS:
                self._rig.reconnect(cut)
                cut = None
            time.sleep(0.2)
        process.kill()
        return process.wait()

    def _hit(self, kind: str, process: subprocess.Popen[bytes]) -> int | None:
        """Lets a fault happen.

        Returns:
            The host whose Ray is to be started anew afterwards, if one is.
        """
        if kind == "submitter":
            process.kill()
        elif kind == "joins":
            self._rig.start(3)
        elif kind == "driver":
            self._kill(1, "-m pipeline train")
        else:
            # Not the head: without it there is no cluster.
            host = next((at for at in (3, 2) if self._found(at, "RayTrainWorker")), None)
            assert host, "the training ended before its fault"
            if kind == "worker":
                self._kill(host, "RayTrainWorker")
                return None
            if kind == "raylet":
                self._kill(host, "raylet/raylet")
            else:
                self._rig.cut_off(host)
            return host
        return None

    def _kill(self, host: int, text: str) -> None:
        found = self._found(host, text)
        assert found, f"host {host} runs no {text}"
        for pid in found:
            kill(pid)

    def _found(self, host: int, text: str) -> list[int]:
        return [pid for pid, command in self._rig.processes(host).items() if text in command]

    def _restore(self, host: int | None) -> None:
        if host is not None:
            self._rig.reconnect(host)
            self._rig.start(host)
        self._rig.wait_for_all()

    def _checkout(self, name: str) -> Path:
        self._count += 1
        checkout = without_data(self._project, self._folder / f"{self._count:02d}-{name}")
        (checkout / "params.yaml").write_text(json.dumps(SETTINGS))
        if (self._project / "models").exists():
            shutil.copytree(self._project / "models", checkout / "models")
            shutil.rmtree(checkout / "models" / name.split("-", 1)[1], ignore_errors=True)
        return checkout

    @staticmethod
    def _reached(checkout: Path, epochs: int, process: subprocess.Popen[bytes]) -> float:
        """Waits until so many epochs have ended.

        Returns:
            When that was, by :func:`time.monotonic`.
        """
        text = f"epoch {epochs}/{EPOCHS}" if epochs else f"worker 1 of {WORKERS}"
        wait_until(lambda: text in (checkout / "out.txt").read_text(), process)
        return time.monotonic()


@contextmanager
def campaign(s3: Server, folder: Path) -> Iterator[Campaign]:
    """A rig with a project, whose settings are in this process's environment for so long."""
    project = make_project(folder / "project", s3)
    shutil.rmtree(project / "models")
    with Rig(3, s3.credentials.endpoint) as rig:
        known = {
            **s3.credentials.environment(),
            "AWS_ENDPOINT_URL": rig.s3,
            "RAY_ADDRESS": rig.address,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": rig.token,
        }
        before = dict(os.environ)
        os.environ.update(known)
        try:
            yield Campaign(rig, project, settings_of_jobs(s3.credentials, rig.disk), folder)
        finally:
            os.environ.clear()
            os.environ.update(before)


def main() -> None:
    """Every kind of fault during every stage, at seeded random moments.

    The exit code is 1 where a run did not complete, or made other weights; what it said is kept.
    """
    page, moments, rows = Path(sys.argv[1]), random.Random(0), list[Row]()
    signal.signal(signal.SIGTERM, _end_in_order)
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    with Server(folder / "s3") as s3, campaign(s3, folder / "runs") as faults:
        for stage in STAGES:
            seconds = faults.undisturbed(stage)
            sys.stderr.write(f"{stage}: {seconds:.0f} s undisturbed\n")
            for kind in KINDS:
                at = round(moments.uniform(0.3, LATEST), 1)
                rows.append(faults.fault(kind, stage, at))
                sys.stderr.write(f"{rows[-1]}\n")
                write(page, rows)
    if any(row.weights != "equal" for row in rows):
        raise SystemExit(f"not every run came to equal weights: see {folder}")
    shutil.rmtree(folder)


def _end_in_order(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def write(page: Path, rows: list[Row]) -> None:
    """Puts the table at the end of a page, in the place of the last one."""
    came = Counter(row.weights for row in rows)
    alone = sum(row.weights != "none" and not row.reruns for row in rows)
    longer = [row.longer for row in rows]
    summary = (
        f"**{len(rows)} faults on {time.strftime('%Y-%m-%d')}: {len(rows) - came['none']} runs "
        f"completed, {alone} of them without the command being run again; weights are equal in "
        f"{came['equal']}. They took longer by {statistics.median(longer):.0f} s in the median, "
        f"{max(longer):.0f} s at most.**"
    )
    lines = [
        "| fault | during | at epoch | run again | longer, s | weights |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {KINDS[row.kind]} | {row.stage} | {row.at:.1f} of {EPOCHS} | {row.reruns} | "
        f"{row.longer:.0f} | {row.weights} |"
        for row in rows
    ]
    before = page.read_text().partition("\n\n## What came of it")[0].rstrip("\n")
    page.write_text("\n".join([before, "", "## What came of it", "", summary, "", *lines, ""]))


if __name__ == "__main__":
    main()
