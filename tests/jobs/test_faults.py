"""Two faults of the campaign on three hosts; `python -m faults` tries all kinds in all stages."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from faults import Campaign, campaign
from rig import possible

from cluster.seaweedfs import Server

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not possible(), reason="making hosts needs root, ip and unshare"),
]


@pytest.fixture(scope="module")
def faults(s3: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Campaign]:
    with campaign(s3, tmp_path_factory.mktemp("campaign")) as faults:
        faults.undisturbed("teacher-cnn")
        yield faults


@pytest.mark.parametrize(("kind", "reruns"), [("driver", 1), ("lost", 0)])
def test_a_training_comes_to_the_same_weights(faults: Campaign, kind: str, reruns: int) -> None:
    row = faults.fault(kind, "teacher-cnn", at=4.5)
    assert row.weights == "equal"
    assert row.reruns == reruns
