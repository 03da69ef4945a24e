"""One local Ray for all stages of a command: python -m cluster.session dvc repro.

Every stage is a command of its own, and would start and end a Ray of its own, which takes about ten
seconds on two cores.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from types import FrameType

from pipeline import compute, environment


def run(command: list[str]) -> int:
    """Runs a command while Ray is up, and returns its exit code.

    Where RAY_ADDRESS names a cluster already, or training does without Ray, none is started.
    """
    environment.set_defaults()
    address = os.environ.get("RAY_ADDRESS")
    if not address and compute.load().workers > 0:
        # Takes most of a second to import, and is not always needed.
        from pipeline.train import ray_cluster  # noqa: PLC0415

        address = ray_cluster.start(show_workers=False)
    chosen = {"RAY_ADDRESS": address} if address else {}
    process: subprocess.Popen[bytes] | None = None
    early: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        if process is None:
            early.append(number)
        else:
            process.send_signal(number)

    def leave(number: int, frame: FrameType | None) -> None:
        """A terminal interrupts the command too, which may ask what is meant; Ray stays up."""

    # Before the command runs, so that no signal finds them missing. They are functions: what is
    # ignored here, the command would ignore too.
    signal.signal(signal.SIGINT, leave)
    signal.signal(signal.SIGTERM, pass_on)
    process = subprocess.Popen(command, env={**os.environ, **chosen})
    for number in early:
        process.send_signal(number)
    return process.wait()


if __name__ == "__main__":
    raise SystemExit(run(sys.argv[1:]))
