"""What stands in the image's Dockerfile."""

from __future__ import annotations

import re
import shlex
from typing import Final

from commands import ROOT

TEXT: Final = (ROOT / "cluster/Dockerfile").read_text()


def steps() -> list[tuple[str, str]]:
    """Instructions and what follows them, without comments."""
    whole = re.sub(r"\\\n", " ", re.sub(r"^ *#.*\n", "", TEXT, flags=re.MULTILINE))
    lines = [line.split(maxsplit=1) for line in whole.splitlines() if line.strip()]
    return [(verb, rest) for verb, rest in lines]


def environment() -> dict[str, str]:
    """The variables that every container of the image has, but for Docker's own PATH."""
    found = [one for verb, rest in steps() if verb == "ENV" for one in shlex.split(rest)]
    return dict(one.split("=", 1) for one in found)
