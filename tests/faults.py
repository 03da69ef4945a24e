"""What happens to a training on three hosts when something dies: one fault after another.

As a command, from the project's top folder and as root, it writes the table of docs/faults.md:
``PYTHONPATH=.:tests python -m faults docs/faults.md``.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bucket import params, without_data
from clustered import ASSISTANT, STUDENT, TEACHER, make_project, settings_of_jobs, weights
from commands import run, start, wait_until
from rig import Rig, kill

from cluster.seaweedfs import Server

STAGES: Final = (TEACHER, ASSISTANT, STUDENT)
WORKERS: Final = 2
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
SETTINGS: Final = params(
    training={"epochs": 16, "batch_size": 8, "lr": 0.01, "precision": "fp32"}
).model_dump(mode="json")


@dataclass(frozen=True)
class Row:
    """What came of one fault.

    Attributes:
        at: seconds after the workers had begun.
        reruns: how often the same command was run again.
        longer: seconds that all took beyond an undisturbed run.
        equal: whether the weights are the undisturbed run's, bit for bit.
    """

    kind: str
    stage: str
    at: float
    reruns: int
    longer: float
    equal: bool


class Campaign:
    """Faults on one rig.

    Args:
        rig: of three hosts.
        project: whose shards were pushed; it gets the models of undisturbed runs.
        settings: of its jobs.
        folder: for checkouts.
    """

    def __init__(self, rig: Rig, project: Path, settings: dict[str, Any], folder: Path) -> None:
        self._rig, self._project, self._folder = rig, project, folder
        self._settings = {**settings, "workers": WORKERS}
        self._seconds: dict[str, tuple[float, float]] = {}

    def undisturbed(self, stage: str) -> None:
        """Trains a stage without a fault, for its weights and its seconds."""
        checkout = self._checkout(f"undisturbed-{stage}")
        began = time.monotonic()
        process = start(checkout, "train", stage, **self._settings)
        self._wait_for_workers(checkout, process)
        working = time.monotonic()
        assert process.wait(timeout=300) == 0, (checkout / "out.txt").read_text()
        ended = time.monotonic()
        self._seconds[stage] = (ended - began, ended - working)
        target = self._project / "models" / stage
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(checkout / "models" / stage, target)

    def fault(self, kind: str, stage: str, share: float) -> Row:
        """Trains a stage with a fault.

        Args:
            kind: a key of :data:`KINDS`.
            stage: trained undisturbed before.
            share: of the seconds that its workers work, after which the fault comes.
        """
        whole, working = self._seconds[stage]
        if kind == "joins":
            self._rig.end(3)
        checkout = self._checkout(f"{kind}-{stage}-{share:.3f}")
        began = time.monotonic()
        process = start(checkout, "train", stage, **self._settings)
        self._wait_for_workers(checkout, process)
        time.sleep(at := share * working)
        host = self._hit(kind, process)
        healed = time.monotonic() + CUT_SECONDS
        while process.poll() is None:
            assert time.monotonic() < began + 400, (checkout / "out.txt").read_text()
            if kind == "cut" and host and time.monotonic() > healed:
                self._rig.reconnect(host)
                host = 0
            time.sleep(0.2)
        code, reruns = process.returncode, 0
        said = (checkout / "out.txt").read_text()
        while code and reruns < _RERUNS:
            reruns += 1
            again = run(checkout, "train", stage, **self._settings)
            code, said = again.returncode, said + again.stderr
        longer = time.monotonic() - began - whole
        (checkout / "said.txt").write_text(said)
        assert code == 0, said
        self._restore()
        equal = weights(checkout, stage) == weights(self._project, stage)
        return Row(kind, stage, at, reruns, longer, equal)

    def _hit(self, kind: str, process: subprocess.Popen[bytes]) -> int:
        """Lets a fault happen; the host it happened to, 0 for none."""
        if kind == "submitter":
            process.kill()
            return 0
        if kind == "joins":
            self._rig.start(3)
            return 3
        if kind == "driver":
            for pid in self._found(1, "-m pipeline train"):
                kill(pid)
            return 1
        # Whoever has a worker, the head last: without it there is no cluster.
        hosts = [number for number in (3, 2) if self._found(number, "RayTrainWorker")] or [3]
        if kind == "worker":
            for pid in self._found(hosts[0], "RayTrainWorker")[:1]:
                kill(pid)
        elif kind == "raylet":
            for pid in self._found(hosts[0], "raylet/raylet"):
                kill(pid)
        else:
            self._rig.cut_off(hosts[0])
        return hosts[0]

    def _found(self, host: int, text: str) -> list[int]:
        return [pid for pid, command in self._rig.processes(host).items() if text in command]

    def _restore(self) -> None:
        for number in (2, 3):
            self._rig.reconnect(number)
            if not self._rig.alive(number):
                self._rig.start(number)
        self._rig.wait_for_all()

    def _checkout(self, name: str) -> Path:
        checkout = without_data(self._project, self._folder / name)
        (checkout / "params.yaml").write_text(json.dumps(SETTINGS))
        if (self._project / "models").exists():
            shutil.copytree(self._project / "models", checkout / "models")
        return checkout

    @staticmethod
    def _wait_for_workers(checkout: Path, process: subprocess.Popen[bytes]) -> None:
        wait_until(lambda: f"worker 1 of {WORKERS}" in (checkout / "out.txt").read_text(), process)


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
    """Every kind of fault during every stage, at seeded random moments."""
    moments, rows = random.Random(0), list[Row]()
    with (
        tempfile.TemporaryDirectory(prefix="faults-") as name,
        Server(Path(name) / "s3") as s3,
        campaign(s3, Path(name)) as faults,
    ):
        for stage in STAGES:
            faults.undisturbed(stage)
            for kind in KINDS:
                rows.append(faults.fault(kind, stage, moments.uniform(0.05, 0.95)))
                write(Path(sys.argv[1]), rows)


def write(page: Path, rows: list[Row]) -> None:
    """Puts the table at the end of a page, in the place of the last one."""
    lines = [
        "| fault | during | at, s | run again | longer, s | weights |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {KINDS[row.kind]} | {row.stage} | {row.at:.1f} | {row.reruns} | {row.longer:.0f} "
        f"| {'equal' if row.equal else 'DIFFERENT'} |"
        for row in rows
    ]
    before = page.read_text().partition("\n| fault |")[0]
    page.write_text("\n".join([before, *lines, ""]))


if __name__ == "__main__":
    main()
