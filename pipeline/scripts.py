"""The ten scripts of CVSI-2015: names, file prefixes, Unicode blocks; its tasks and splits.

The names are the data set's own folder names, its spellings "Gujrathi" and "Telegu" included.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Split = Literal["train", "validation", "test"]
SPLITS: Final[tuple[Split, ...]] = ("train", "validation", "test")


@dataclass(frozen=True)
class Script:
    """One script of the data set.

    Attributes:
        name: the folder name in CVSI-2015.
        code: the three-letter prefix of its file names.
        blocks: inclusive ranges of the Unicode code points its letters come from.
        language: the ISO 639-1 code of the language its words are taken from.
    """

    name: str
    code: str
    blocks: tuple[tuple[int, int], ...]
    language: str

    def holds(self, word: str) -> bool:
        """Whether every character of ``word`` is of this script (joiners allowed)."""
        return bool(word) and all(
            char in _JOINERS or any(low <= ord(char) <= high for low, high in self.blocks)
            for char in word
        )


_JOINERS: Final = "\u200c\u200d"

SCRIPTS: Final[tuple[Script, ...]] = (
    Script("Arabic", "ARB", ((0x0621, 0x065F), (0x0670, 0x06D3)), "ar"),
    Script("Bengali", "BEN", ((0x0980, 0x09E5),), "bn"),
    Script("English", "ENG", ((0x0041, 0x005A), (0x0061, 0x007A)), "en"),
    Script("Gujrathi", "GUJ", ((0x0A80, 0x0AE5),), "gu"),
    Script("Hindi", "HIN", ((0x0900, 0x0963),), "hi"),
    Script("Kannada", "KAN", ((0x0C80, 0x0CE5),), "kn"),
    Script("Oriya", "ORI", ((0x0B00, 0x0B65),), "or"),
    Script("Punjabi", "PUN", ((0x0A00, 0x0A65), (0x0A70, 0x0A75)), "pa"),
    Script("Tamil", "TAM", ((0x0B80, 0x0BE5),), "ta"),
    Script("Telegu", "TEL", ((0x0C00, 0x0C65),), "te"),
)

NAMES: Final[tuple[str, ...]] = tuple(script.name for script in SCRIPTS)
BY_NAME: Final[dict[str, Script]] = {script.name: script for script in SCRIPTS}
BY_CODE: Final[dict[str, Script]] = {script.code: script for script in SCRIPTS}

_TASKS: Final[dict[str, tuple[str, ...]]] = {
    "2": ("English", "Hindi", "Bengali", "Oriya", "Gujrathi", "Punjabi", "Arabic"),
    "3": ("English", "Hindi", "Kannada", "Tamil", "Telegu"),
    "4": NAMES,
} | {
    f"1-{third}": ("English", "Hindi", third)
    for third in NAMES
    if third not in ("English", "Hindi")
}

TASKS: Final[dict[str, tuple[str, ...]]] = {
    task: tuple(name for name in NAMES if name in scripts) for task, scripts in _TASKS.items()
}
"""Scripts of every competition task, in alphabetical order.

Task 1 is eight triplets, each English, Hindi and one other: ``1-Tamil`` names one of them.
"""
