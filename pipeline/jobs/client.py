"""A cluster's job server, with errors that say what to do."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import aiohttp
import requests
from ray.dashboard.modules.job.pydantic_models import JobDetails
from ray.exceptions import AuthenticationError
from ray.job_submission import JobStatus, JobSubmissionClient

from pipeline.errors import ClusterError, TrainingError, UsageError
from pipeline.failure import LINE, Failure, error_of
from pipeline.train.ray_cluster import refused

PATIENCE_SECONDS: Final = 300.0
"""How long a cluster may not answer while a job on it is followed."""
_EVERY_SECONDS: Final = 0.5
_AGENT: Final = "No available agent"
_AGENT_SECONDS: Final = 60.0
"""How long a cluster that has just started may be without an agent that starts jobs."""
_SILENT_SECONDS: Final = 60.0
"""How long a job may say nothing before its connection is made anew."""
_BROKEN: Final = (ConnectionError, RuntimeError, requests.RequestException, aiohttp.ClientError)
_LOGGERS: Final = (
    *("ray.dashboard.modules.job.sdk", "ray.dashboard.modules.dashboard_sdk"),
    "ray._private.runtime_env.packaging",
)


class JobLog:
    """What a job has said so far. It is told from its beginning after every broken connection.

    Args:
        show: takes every line.

    Attributes:
        failure: why it failed, if it said so.
    """

    def __init__(self, show: Callable[[str], None]) -> None:
        self.failure: Failure | None = None
        self._take = show
        self._seen = 0
        self._begun = ""

    def take(self, text: str, position: int) -> int:
        """Shows what is new of a piece of the log.

        Args:
            text: the piece.
            position: of its first character in the log.

        Returns:
            The position of what comes after it.
        """
        end = position + len(text)
        if end > self._seen:
            *lines, self._begun = (self._begun + text[self._seen - end :]).split("\n")
            self._seen = end
            for line in lines:
                self._show(line)
        return end

    def finish(self) -> None:
        """Shows a last line that was not ended."""
        if self._begun:
            self._show(self._begun)
            self._begun = ""

    def _show(self, line: str) -> None:
        if line.startswith(LINE):
            self.failure = Failure.model_validate_json(line.removeprefix(LINE))
        else:
            self._take(line.rstrip())


class JobServer:
    """Jobs of one cluster."""

    def __init__(self, address: str) -> None:
        """Reaches for the cluster.

        Args:
            address: ``http://HOST:8265``.

        Raises:
            UsageError: the cluster refuses the token.
            ClusterError: nothing answers there.
        """
        self.address = address
        for name in _LOGGERS:
            logging.getLogger(name).setLevel(logging.WARNING)
        with self._errors():
            self._client = JobSubmissionClient(address)

    def running(self, name: str, other: str | None = None) -> JobDetails | None:
        """The job of that name that has not ended, in whichever attempt.

        Args:
            name: of the job.
            other: another submission id under which it may run.
        """
        with self._errors():
            attempts = self._attempts(name)
            if other is not None:
                attempts += [job for job in self._client.list_jobs() if job.submission_id == other]
        return next((job for job in attempts if not job.status.is_terminal()), None)

    def submit(
        self,
        name: str,
        command: str,
        folder: Path,
        environment: dict[str, str],
        about: dict[str, str],
    ) -> str:
        """Submits a job, unless one of its name runs already.

        Args:
            name: of the job; a name is never used again, so later attempts get a number.
            command: what it runs.
            folder: what it takes along.
            environment: variables for it, all of them visible to whoever may see the cluster.
            about: what is said of it on the cluster.

        Returns:
            The submission id; of another's job, where somebody has submitted the same just now.
        """
        deadline = time.monotonic() + _AGENT_SECONDS
        with self._errors():
            while True:
                attempts = self._attempts(name)
                for job in attempts:
                    if not job.status.is_terminal():
                        return str(job.submission_id)
                number = len(attempts) + 1
                wanted = name if number == 1 else f"{name}-{number}"
                try:
                    self._client.submit_job(
                        entrypoint=command,
                        submission_id=wanted,
                        runtime_env={"working_dir": str(folder), "env_vars": environment},
                        metadata=about,
                    )
                    return wanted
                except RuntimeError as error:
                    # Of two that submit at once one comes first: a name is taken only once.
                    if any(job.submission_id == wanted for job in self._attempts(name)):
                        return wanted
                    # Ray has no type for it: its client tells every refusal in words alone.
                    if _AGENT not in str(error) or time.monotonic() > deadline:
                        raise
                time.sleep(_EVERY_SECONDS)

    def follow(
        self,
        job: str,
        show: Callable[[str], None],
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        """Shows what a job says until it ends.

        Args:
            job: its submission id.
            show: takes every line of its log.
            patience: seconds that the cluster may not answer.

        Raises:
            DistillError: the job failed, by the type of error that it told.
            TrainingError: it was stopped.
            ClusterError: it died, or the cluster did not answer for so long and it may go on.
        """
        shown, failing_since = JobLog(show), None
        while True:
            try:
                asyncio.run(self._tail(job, shown))
                found = self._client.get_job_info(job)
                failing_since = None
                if found.status.is_terminal():
                    shown.take(self._client.get_job_logs(job), 0)
                    shown.finish()
                    break
            except _BROKEN as error:
                if "status code 404" in str(error):
                    raise ClusterError(
                        f"the cluster at {self.address} does not know the job {job} any more, its "
                        "head was started anew: the same command goes on from the last checkpoint"
                    ) from error
                failing_since = failing_since or time.monotonic()
                if time.monotonic() - failing_since > patience:
                    raise ClusterError(
                        f"the cluster at {self.address} has not answered for {patience:.0f} s "
                        f"({error}); if it lives the job {job} goes on: run the same command again"
                    ) from error
            time.sleep(_EVERY_SECONDS)
        if found.status == JobStatus.STOPPED:
            raise TrainingError(
                f"the job {job} was stopped from elsewhere: the same command goes on from its last "
                "checkpoint"
            )
        if found.status == JobStatus.FAILED:
            at = f"(job {job} at {self.address})"
            if shown.failure is None:
                raise ClusterError(
                    f"the job died {at}: {found.message}; the same command goes on from its last "
                    "checkpoint"
                )
            said = shown.failure
            raise error_of(said.model_copy(update={"message": f"{said.message} {at}"}))

    def stop(self, job: str) -> None:
        """Ends a job, and waits until it has ended."""
        with self._errors():
            self._client.stop_job(job)
            while not self._client.get_job_info(job).status.is_terminal():
                time.sleep(_EVERY_SECONDS)

    async def _tail(self, job: str, shown: JobLog) -> None:
        position, pieces = 0, self._client.tail_job_logs(job)
        while True:
            try:
                text = await asyncio.wait_for(anext(pieces), _SILENT_SECONDS)
            except (StopAsyncIteration, TimeoutError):
                # A lost head sends nothing either: whether it is there is asked for next.
                return
            position = shown.take(text, position)

    def _attempts(self, name: str) -> list[JobDetails]:
        def is_one(submission: str) -> bool:
            rest = submission.removeprefix(name)
            return submission.startswith(name) and (not rest or rest.removeprefix("-").isdigit())

        return [job for job in self._client.list_jobs() if is_one(job.submission_id or "")]

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except AuthenticationError as error:
            raise UsageError(refused(self.address)) from error
        except _BROKEN as error:
            raise ClusterError(
                f"the cluster at {self.address} (from RAY_ADDRESS) does not do what it is asked "
                f"({error}): check that it runs and that the tunnel to it is open, then run the "
                "same command again"
            ) from error
