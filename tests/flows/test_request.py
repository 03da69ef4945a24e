"""What can be asked for: said by the request, the flow's signature, prefect.yaml and the docs."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import get_type_hints

import yaml

from flows.flow import distill_pipeline
from flows.request import Request

TOP = Path(__file__).parents[2]


def test_the_form_asks_for_what_a_request_is() -> None:
    signature = inspect.signature(distill_pipeline.fn).parameters
    asked = get_type_hints(distill_pipeline.fn, include_extras=True)
    known = get_type_hints(Request, include_extras=True)
    assert list(signature) == list(Request.model_fields)
    for name, field in Request.model_fields.items():
        assert signature[name].default == field.default
        assert asked[name] == known[name]


def test_deployments_ask_for_what_can_be() -> None:
    for deployment in yaml.safe_load((TOP / "prefect.yaml").read_text())["deployments"]:
        Request.model_validate(deployment.get("parameters", {}))


def test_the_page_names_every_parameter() -> None:
    page = (TOP / "docs/flows.md").read_text()
    table = page.split("| parameter | meaning | default |")[1].split("\n\n")[0]
    cells = re.findall(r"^\| (`[^|]*) \|", table, re.MULTILINE)
    assert re.findall(r"`(\w+)`", " ".join(cells)) == list(Request.model_fields)
