"""A worktree of its own for what is asked for, so that nothing of a run touches the checkout.

The same request at the same commit gets the same worktree, so it goes on where it was; one process
at a time has it. All worktrees share the checkout's DVC cache.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dvc.config import Config
from dvc.repo import Repo
from dvc.utils.serialize import modify_yaml
from pydantic import JsonValue

from flows.request import Request
from pipeline.errors import DataError, UsageError
from pipeline.files import write_whole
from pipeline.params import PARAMS_FILE

WORKTREES: Final = Path(".worktrees")
CORES: Final = WORKTREES / "locks/cores"
"""Held by the one run of a checkout that may train on this machine."""
BORROWED: Final = (Path("pipeline/data/fontsource/node_modules"),)
"""What git does not hold and stages need, as it lies in the checkout."""

_CHECK = (
    "import sys; from pipeline import errors, params\n"
    "try: params.load()\n"
    "except errors.UsageError as error: sys.exit(str(error))"
)


@dataclass(frozen=True)
class Worktree:
    """Where a run happens.

    Attributes:
        key: of the commit and the settings.
        folder: the project, at that commit, with those settings.
        checkout: whose it is.
        lock: the file descriptor that keeps others out.
    """

    key: str
    folder: Path
    checkout: Path
    lock: int

    @property
    def branch(self) -> str:
        """Where its results are committed."""
        return f"distill/{self.key}"

    def keep(self, message: str) -> tuple[bool, str]:
        """Commits what changed in files that git knows, and lets the branch follow.

        Returns:
            Whether anything did, and where the results are.
        """
        changed = bool(_git(self.folder, "status", "--porcelain", "--untracked-files=no"))
        if changed:
            name = [
                "-c",
                "user.name=distill-pipeline",
                "-c",
                "user.email=distill-pipeline@localhost",
            ]
            _git(self.folder, *name, "commit", "--quiet", "--no-verify", "--all", "-m", message)
        about = json.loads(_marker(self.folder).read_text())
        write_whole(_marker(self.folder), json.dumps({**about, "kept": True}) + "\n")
        return changed, self._named()

    @property
    def kept(self) -> bool:
        """Whether a run kept it."""
        return bool(json.loads(_marker(self.folder).read_text()).get("kept"))

    @property
    def used(self) -> float:
        """When the last run began in it, in seconds since 1970; 0 where it never came to that."""
        marker = _marker(self.folder)
        return marker.stat().st_mtime if marker.exists() else 0

    def drop(self) -> None:
        """Removes it; DVC's cache keeps what stages made."""
        _remove(self.checkout, self.folder)
        _marker(self.folder).unlink(missing_ok=True)

    def _named(self) -> str:
        """Where its last commit is: on the branch, unless that would harm somebody's work there."""
        on_it = f"on the branch {self.branch}"
        try:
            _git(self.folder, "merge-base", "--is-ancestor", "HEAD", f"refs/heads/{self.branch}")
        except DataError:
            pass
        else:
            return on_it
        try:
            # It refuses a branch that is checked out elsewhere, or has commits that are not here.
            _git(self.folder, "fetch", "--quiet", ".", f"HEAD:refs/heads/{self.branch}")
        except DataError as error:
            return f"in the commit {_git(self.folder, 'rev-parse', 'HEAD')} ({error})"
        return on_it


@contextmanager
def worktree(checkout: Path, request: Request, waiting: Callable[[], None]) -> Iterator[Worktree]:
    """The worktree of a request, made where it is not there yet, and kept from others.

    Args:
        checkout: the top folder of a git repository with a DVC project.
        request: says the revision and the settings.
        waiting: called where another run has it, before waiting for that run's end.

    Raises:
        UsageError: there is no such revision, or params.yaml does not take the settings.
    """
    commit = commit_of(checkout, request.revision)
    settings = request.settings
    about = json.dumps({"commit": commit, "settings": settings}, sort_keys=True)
    key = hashlib.sha256(about.encode()).hexdigest()[:12]
    folder = checkout / WORKTREES / key
    locks = folder.parent / "locks"
    with alone(locks / key, waiting) as lock:
        made = _marker(folder).exists() and folder.exists()
        try:
            if not made:
                with alone(locks / "making", lambda: None):
                    _make(checkout, folder, commit)
            # At every start: a remote, its keys or the fonts may have changed or come since.
            _configure(checkout, folder)
            _borrow(checkout, folder)
            if not made:
                _set(folder / PARAMS_FILE, settings)
                _check(folder)
                write_whole(_marker(folder), about + "\n")
            _marker(folder).touch()
            # Of a git that was killed: nobody else is at work here.
            Path(_git(folder, "rev-parse", "--git-path", "index.lock")).unlink(missing_ok=True)
        except BaseException:
            if not made:
                _remove(checkout, folder)
            raise
        yield Worktree(key, folder, checkout, lock)


def commit_of(checkout: Path, revision: str) -> str:
    """The commit that a revision names now.

    Raises:
        UsageError: there is none.
    """
    try:
        return _git(checkout, "rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}")
    except DataError as error:
        raise UsageError(f"revision: {checkout} has no {revision!r}") from error


@contextmanager
def alone(file: Path, waiting: Callable[[], None]) -> Iterator[int]:
    """Holds an exclusive lock, which the kernel gives back when its last holder ends.

    Args:
        file: is made where it is missing, with its folder, and stays.
        waiting: called where another holds it, before waiting for its end.

    Returns:
        A file descriptor: whoever has it open is a holder.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock
    finally:
        os.close(lock)


def _marker(folder: Path) -> Path:
    return folder.with_suffix(".json")


def _make(checkout: Path, folder: Path, commit: str) -> None:
    # One that a killed process left half-made would be refused; twice, for git locks it till then.
    _remove(checkout, folder)
    twice = ("--force", "--force")
    _git(checkout, "worktree", "add", *twice, "--detach", "--quiet", str(folder), commit)


def _remove(checkout: Path, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    _git(checkout, "worktree", "prune")


def _configure(checkout: Path, folder: Path) -> None:
    """Shares the cache, the remotes and their keys; what is relative is so to the checkout."""
    with Repo(str(checkout)) as repo:
        shared = {
            "cache": {**repo.config["cache"], "dir": repo.cache.local_cache_dir},
            "remote": {name: dict(remote) for name, remote in repo.config["remote"].items()},
            "core": dict(repo.config["core"]),
        }
    # From nothing, and its owner's alone before there is a key in it.
    write_whole(folder / ".dvc/config.local", "", mode=0o600)
    config = Config(str(folder / ".dvc"))
    with config.edit("local") as local:
        local.update(shared)


def _borrow(checkout: Path, folder: Path) -> None:
    for path in BORROWED:
        there = (folder / path).is_symlink() or (folder / path).exists()
        if not there and (checkout / path).exists() and (folder / path.parent).exists():
            (folder / path).symlink_to(checkout / path)


def _set(file: Path, settings: dict[str, JsonValue]) -> None:
    """Gives keys of a YAML file other values; its comments stay."""
    with modify_yaml(str(file)) as content:
        for key, value in settings.items():
            *path, last = key.split(".")
            section: Any = content
            for name in path:
                section = section.get(name) if isinstance(section, dict) else None
            if not isinstance(section, dict):
                raise UsageError(
                    f"overrides: {file.name} has no section {'.'.join(path)} for {key}"
                )
            section[last] = value


def _check(folder: Path) -> None:
    """Lets the revision's own code judge its parameters."""
    done = subprocess.run(
        [sys.executable, "-c", _CHECK], cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise UsageError(done.stderr.strip())


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise DataError(f"git {arguments[0]} failed in {folder}: {done.stderr.strip()}")
    return done.stdout.strip()
