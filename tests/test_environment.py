"""What commands tell the libraries, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from commands import ROOT

NAMES = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")
SAYS = f"""
import os
from pipeline import environment
environment.set_defaults()
print(*(os.environ.get(name) for name in {NAMES}))
"""


@pytest.mark.parametrize(
    ("given", "says"),
    [({}, "33554432 268435456"), ({NAMES[1]: "1000000"}, "None 1000000")],
)
def test_the_allocator_is_left_to_whoever_sets_it(given: dict[str, str], says: str) -> None:
    bare = {name: value for name, value in os.environ.items() if name not in NAMES}
    done = subprocess.run(
        [sys.executable, "-c", SAYS],
        cwd=ROOT,
        env=bare | given,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == says
