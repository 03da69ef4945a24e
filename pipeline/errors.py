"""What can go wrong, by type: callers decide by the type, people read the message.

Every message says what was wrong, where, and what to do next.
"""

from __future__ import annotations


class DistillError(Exception):
    """Anything this project refuses or fails at; the command line exits with ``exit_code``."""

    exit_code = 1


class UsageError(DistillError):
    """The caller asked for something that cannot be: a bad parameter, an unknown run."""

    exit_code = 2


class DataError(DistillError):
    """The data is not what it should be; the message names the file. A retry cannot heal it."""


class TrainingError(DistillError):
    """Training cannot go on, for example after a loss that is not finite."""


class TransientError(DistillError):
    """What may come back was lost: a worker, a node, a connection. A retry can heal it."""


class StorageError(TransientError):
    """Storage elsewhere cannot be reached or fails; the same command may succeed later."""


class ClusterError(TransientError):
    """A Ray cluster cannot be reached, or a job on it died; the same command may succeed later."""
