"""Every test computes on one thread: its numbers do not hang on the machine's cores."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import pytest
import torch
from hypothesis import settings

# The same examples in every run; a slow, shared machine is no failure.
settings.register_profile("repeatable", derandomize=True, deadline=None, max_examples=60)
settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
