"""How templates are filled, and how numbers are written in them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from pipeline.statistics import SIGNIFICANT

TEMPLATES: Final = Path(__file__).parent / "templates"


def fill(template: str, **content: object) -> str:
    """A template filled; everything is escaped in HTML, and a missing value is an error."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        # Markdown shows HTML escapes as they stand; its template escapes table cells by ``cell``.
        autoescape=select_autoescape(enabled_extensions=("html.j2", "svg.j2")),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "cell": cell,
        "count": count,
        "fixed": fixed,
        "heat": heat,
        "json": as_json,
        "p_value": p_value,
        "short": short,
        "signed": signed,
        "size": size,
    }
    return environment.get_template(template).render(**content)


def as_json(value: object) -> str:
    """A value in one line, its keys sorted."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def cell(text: object) -> str:
    """A text that cannot break out of its Markdown table cell or line."""
    return " ".join(str(text).replace("\\", "\\\\").replace("|", "\\|").split())


def count(number: int) -> str:
    """A whole number, its thousands apart."""
    return f"{number:,}"


def fixed(number: float, places: int = 2) -> str:
    """A number with that many decimals."""
    return f"{number:.{places}f}"


def heat(errors: float, all_of_them: float) -> int:
    """How strongly a share of errors is coloured, in percent; small shares are still seen."""
    share = min(errors / all_of_them, 1.0) if all_of_them else 0.0
    return round(62 * math.sqrt(max(share, 0.0)))


def p_value(p: float) -> str:
    """A p-value as printed; never rounded to the wrong side of the threshold."""
    if p < 0.001:
        return "p < 0.001"
    text = f"{p:.3f}"
    if (float(text) < SIGNIFICANT) != (p < SIGNIFICANT):
        text = f"{p:.5f}"
    return f"p = {text}"


def short(value: float) -> str:
    """A number with as few characters as tell it: 20k, 1.5M."""
    for scale, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= scale:
            return f"{value / scale:.3g}{letter}"
    return f"{value:.3g}"


def signed(number: float) -> str:
    """A difference, its sign always written; what rounds to nothing has none."""
    text = f"{abs(number):.2f}"
    if float(text) == 0:
        return text
    return ("+" if number > 0 else "−") + text


def size(number: int) -> str:
    """A file size in decimal units."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= scale:
            return f"{number / scale:.3g} {unit}"
    return f"{number} B"
